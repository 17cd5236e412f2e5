"""What whoever runs an installation has laid down for all of it: `CJ_HOME/installation.yaml`.

A batch has its own `batch.yaml`; this file is the operator's. It may be left out, and so may each
of its keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from cj_pipeline.ceilings import Ceilings, overridden, read_allowed, read_ceilings
from cj_pipeline.errors import SettingsError
from cj_pipeline.strict_yaml import load_yaml
from cj_pipeline.tokens import AccessToken, read_tokens

INSTALLATION_FILE = "installation.yaml"
PUBLISHED = ("owner", "group")
BATCH_JUDGES = (None, "refuse", "allow")


BATCH_JUDGES_VARIABLE = "CJ_BATCH_JUDGES"


@dataclass(frozen=True)
class BatchJudges:
    """Where judges that a batch brings may be reached, and with which keys.

    Attributes:
        mode: `allow`: they may name any address and their own key; `refuse`: only what is listed;
            None: `allow` for a person who takes in a folder of their own, else `refuse`.
        hosts: The hosts they may name, in every mode; None: as `mode` says.
        keys: Variables they may name, each with the addresses it may be sent to; none: any.
    """

    mode: Literal["refuse", "allow"] | None = None
    hosts: tuple[str, ...] | None = None
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Installation:
    """An operator's settings.

    Attributes:
        published: Who may read the published copy of the store: `owner`, or `group` where
            analysts of the home's group have accounts of their own.
        retention_days: How long after its end a batch is kept that names no date itself; None: it
            is kept until somebody forgets it.
        keep_in_inbox: Whether opened folders stay in the inbox; else they go to `ingested/`.
        inbox_rest_s: For how many seconds a folder must be unchanged whose judges cost money.
        notify: Who is told what; `operations.delivery` says what it may hold, and checks it.
        tokens: Who else may call the service; `cj token` writes them.
        ceilings: The most that may be spent, whatever a batch or a caller says.
        allowed_judges: The judges that may be asked; None: all.
        batch_judges: Whether judges that a batch brings may name addresses and keys.
        allowed_hosts: The hosts that they may name.
        allowed_key_variables: The variables that they may name, and where each may be sent.
    """

    published: str = "owner"
    retention_days: float | None = None
    keep_in_inbox: bool = False
    inbox_rest_s: float = 60.0
    notify: Any = None
    tokens: tuple[AccessToken, ...] = ()
    ceilings: Ceilings = field(default_factory=Ceilings)
    allowed_judges: tuple[str, ...] | None = None
    batch_judges: Literal["refuse", "allow"] | None = None
    allowed_hosts: tuple[str, ...] | None = None
    allowed_key_variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def of_batches(self) -> BatchJudges:
        """What judges that a batch brings may name."""
        return BatchJudges(self.batch_judges, self.allowed_hosts, self.allowed_key_variables)


def read_installation(home: Path, environment: Mapping[str, str] | None = None) -> Installation:
    """Return what a home's file says; ceilings and allowed judges in the environment win over it.

    Raises:
        SettingsError: If it cannot be used; the message gives everything that is wrong.
    """
    said = read_installation_file(home / INSTALLATION_FILE)
    ceilings, allowed, problems = overridden(said.ceilings, said.allowed_judges, environment or {})
    batch_judges = (environment or {}).get(BATCH_JUDGES_VARIABLE, "").strip() or said.batch_judges
    if batch_judges not in BATCH_JUDGES:
        problems.append(f"{BATCH_JUDGES_VARIABLE} is allow or refuse")
    if problems:
        msg = f"The environment cannot be used: {'; '.join(problems)}."
        raise SettingsError(msg)
    return replace(
        said, ceilings=ceilings, allowed_judges=allowed, batch_judges=cast(Any, batch_judges)
    )


def read_installation_file(file: Path) -> Installation:
    """Return what one such file says, wherever it is; as `read_installation` otherwise."""
    try:
        said = load_yaml(file.read_text("utf-8"))
    except FileNotFoundError:
        return Installation()
    except (OSError, ValueError, yaml.YAMLError) as error:
        msg = f"{file} cannot be read: {error}"
        raise SettingsError(msg) from error
    if said is None:
        return Installation()
    if problems := _problems(said):
        msg = f"{file} cannot be used: {'; '.join(problems)}."
        raise SettingsError(msg)
    read = {
        "tokens": read_tokens(said.get("tokens"))[0],
        "ceilings": read_ceilings(said.get("ceilings"))[0],
        "allowed_judges": read_allowed(said.get("allowed_judges"))[0],
        "allowed_hosts": _hosts(said.get("allowed_hosts"))[0],
        "allowed_key_variables": _keys(said.get("allowed_key_variables"))[0],
    }
    return Installation(**said | read)


def _problems(said: Any) -> list[str]:
    if not isinstance(said, dict):
        return ["it is no mapping of keys to values"]
    known = [field.name for field in fields(Installation)]
    problems = [f"{key} is no key of it, which are {known}" for key in said if key not in known]
    if said.get("published", "owner") not in PUBLISHED:
        problems.append(f"published is one of {PUBLISHED}")
    days = said.get("retention_days")
    is_number = isinstance(days, int | float) and not isinstance(days, bool)
    if days is not None and not (is_number and days >= 0):
        problems.append("retention_days is a number of days, 0 or more")
    if not isinstance(said.get("keep_in_inbox", False), bool):
        problems.append("keep_in_inbox is true or false")
    rest = said.get("inbox_rest_s", 60.0)
    if isinstance(rest, bool) or not isinstance(rest, int | float) or rest < 0:
        problems.append("inbox_rest_s is a number of seconds, 0 or more")
    problems += read_tokens(said.get("tokens"))[1]
    problems += read_ceilings(said.get("ceilings"))[1]
    problems += read_allowed(said.get("allowed_judges"))[1]
    if said.get("batch_judges") not in BATCH_JUDGES:
        problems.append("batch_judges is allow or refuse")
    problems += _hosts(said.get("allowed_hosts"))[1]
    problems += _keys(said.get("allowed_key_variables"))[1]
    return problems


_HOST = re.compile(r"(https?://)?[\w.*-]+(:\d+)?|(https?://)?\[[0-9a-fA-F:]+\](:\d+)?")


def _hosts(said: Any) -> tuple[tuple[str, ...] | None, list[str]]:
    if said is None:
        return None, []
    if not _is_texts(said) or not all(_HOST.fullmatch(entry.strip()) for entry in said):
        told = "such as llm.school.example, *.school.example or http://gpu.local:11434"
        return None, [f"allowed_hosts is a list of hosts, {told}"]
    return tuple(entry.strip() for entry in said), []


def _keys(said: Any) -> tuple[Mapping[str, tuple[str, ...]], list[str]]:
    """Return each variable with where it may be sent; a list of variables names no addresses."""
    wanted = (
        "allowed_key_variables is a list of variables, or each with the addresses it may be sent"
        " to, such as {LAB_KEY: [https://llm.school.example]}"
    )
    if said is None:
        return {}, []
    if _is_texts(said):
        said = {name: [] for name in said}
    if not isinstance(said, dict):
        return {}, [wanted]
    for name, addresses in said.items():
        is_variable = isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        if not is_variable or not _is_texts(addresses):
            return {}, [wanted]
        if not all(re.match(r"https?://[^/\s]", address) for address in addresses):
            return {}, [wanted]
    return {name: tuple(addresses) for name, addresses in said.items()}, []


def _is_texts(said: Any) -> bool:
    return isinstance(said, list) and all(isinstance(entry, str) for entry in said)

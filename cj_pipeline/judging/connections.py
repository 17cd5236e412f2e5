"""Where a judge that a batch brings may be reached, and with which key.

A batch chooses model, template and settings. Its address and the variable with its key decide
where essays and keys go, so those are the installation's to allow. A key of a known provider goes
to that provider's own address and to no other. What `installation.yaml` may say is `installation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from cj_pipeline.installation import INSTALLATION_FILE, BatchJudges
from cj_pipeline.judging.addresses import is_loopback, origin_of, port_of
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.provider_definitions import ProviderDefinition, known_definitions

_API_KEY = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
_OTHER_SECRETS = frozenset(
    {"SECRET", "ACCESS", "PRIVATE", "MASTER", "SIGNING", "ENCRYPTION", "SSH", "SESSION", "DEPLOY"}
)
"""Words in the names of keys that open something else than a judge's provider."""


def connection_problems(
    judge: Judge,
    rules: BatchJudges,
    *,
    is_own: bool,
    known: Sequence[ProviderDefinition] | None = None,
) -> list[str]:
    """Return one line for each thing in a batch's judge that the installation does not allow.

    Args:
        judge: Read from a file that the batch brings.
        rules: The installation's.
        is_own: Whether a person takes the batch in by hand, from a folder of their own.
        known: The installation's provider definitions; by default the shipped ones.
    """
    definitions = known_definitions() if known is None else known
    may_choose = rules.mode == "allow" or (rules.mode is None and is_own)
    return [
        f"judge '{judge.name}' {problem}"
        for problem in (
            *_address_problems(judge, rules, may_choose=may_choose),
            *_key_problems(judge, rules, definitions, may_choose=may_choose),
        )
    ]


def _address_problems(judge: Judge, rules: BatchJudges, *, may_choose: bool) -> Iterator[str]:
    if judge.base_url is None or not judge.has_own_address:
        return
    parts = urlsplit(judge.base_url)
    if not parts.hostname or parts.username is not None or parts.password is not None:
        yield "has a base_url without a host, or with a name and password in it: leave those out"
        return
    named = next((entry for entry in rules.hosts or () if _is_host(parts, entry)), None)
    if named is None and (rules.hosts is not None or not may_choose):
        whose = "a batch's own judge" if rules.hosts is None else "a judge of a batch"
        yield (
            f"names the address {origin_of(judge.base_url)}, which {whose} may not choose here: add"
            f" the host to allowed_hosts in {INSTALLATION_FILE}"
            + ("" if rules.hosts is not None else _or_allow(rules))
        )
    is_open = parts.scheme == "http" and not is_loopback(judge.base_url)
    if is_open and not (named or "").startswith("http://"):
        yield (
            f"sends essays and its key to {origin_of(judge.base_url)} for everybody on the way to"
            " read: use https, or, for a server in your own network, add"
            f" {origin_of(judge.base_url)} to allowed_hosts in {INSTALLATION_FILE}"
        )


def _key_problems(
    judge: Judge,
    rules: BatchJudges,
    known: Sequence[ProviderDefinition],
    *,
    may_choose: bool,
) -> Iterator[str]:
    variable = judge.key_variable
    if variable is None:
        return
    address = judge.base_url or judge.service.base_url
    if address is None:
        return
    origin = origin_of(address)
    declared = rules.keys.get(variable)
    if declared is not None and (not declared or origin in map(origin_of, declared)):
        return
    bound = {
        origin_of(each.base_url)
        for each in known
        if each.base_url is not None and each.key_variable == variable
    } | {origin_of(one) for one in declared or ()}
    if bound:
        if origin not in bound:
            yield (
                f"would send {variable} to {origin}, and that key belongs to"
                f" {' and '.join(sorted(bound))}: name another variable as key_variable, or say"
                f" `allowed_key_variables: {{{variable}: [{origin}]}}` in {INSTALLATION_FILE}"
            )
        return
    if may_choose and (_API_KEY.fullmatch(variable) or _is_local_key(variable, address)):
        return
    yield (
        f"names the variable {variable} as its key, which a judge of a batch may not read here:"
        f" add it to allowed_key_variables in {INSTALLATION_FILE}"
        + (", or give the key in a variable whose name ends in _API_KEY" if may_choose else "")
    )


def _or_allow(rules: BatchJudges) -> str:
    if rules.mode == "refuse":
        return ""
    return (
        ", run `cj execute` on a folder of your own, or, where every folder of the inbox is yours,"
        " set CJ_BATCH_JUDGES=allow"
    )


def _is_local_key(variable: str, address: str) -> bool:
    """Whether it is a key for a server on this machine, and of nothing else by its name."""
    words = set(variable.split("_"))
    return variable.endswith("_KEY") and not words & _OTHER_SECRETS and is_loopback(address)


def _is_host(parts: SplitResult, entry: str) -> bool:
    """Whether an entry such as `*.school.example`, `host:8000` or `http://host` is this host."""
    allowed = urlsplit(entry if "://" in entry else f"{parts.scheme}://{entry}")
    port = port_of(allowed)
    return (
        allowed.scheme == parts.scheme
        and fnmatchcase((parts.hostname or "").lower(), (allowed.hostname or "").lower())
        and (port is None or port == port_of(parts))
    )

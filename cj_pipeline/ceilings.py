"""What an operator lets an installation spend, and on which judges: `ceilings`, `allowed_judges`.

They stand in `CJ_HOME/installation.yaml`, or in the environment, which wins. No batch's settings
and no caller can lift them. What they are held against is `planning.spending_limits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

JUDGES_VARIABLE = "CJ_ALLOWED_JUDGES"
VARIABLES: Mapping[str, str] = {
    "usd_per_batch": "CJ_MAX_USD_PER_BATCH",
    "usd_per_day": "CJ_MAX_USD_PER_DAY",
    "usd_per_token": "CJ_MAX_USD_PER_TOKEN",
}
"""Which variable of the environment wins over which ceiling."""


@dataclass(frozen=True)
class Ceilings:
    """The most that may be spent, in USD, reservations included; None: no ceiling.

    Attributes:
        usd_per_batch: On one batch.
        usd_per_day: On all batches together, by the day (UTC) on which requests are sent.
        usd_per_token: On all batches that one of the service's tokens reaches.
    """

    usd_per_batch: float | None = None
    usd_per_day: float | None = None
    usd_per_token: float | None = None


def read_ceilings(said: Any) -> tuple[Ceilings, list[str]]:
    """Return the ceilings of a file, and everything that is wrong with them."""
    if said is None:
        return Ceilings(), []
    names = [field.name for field in fields(Ceilings)]
    if not isinstance(said, dict):
        return Ceilings(), [f"ceilings has the keys {names}"]
    problems = [
        f"ceilings: {key} is no key of it, which are {names}" for key in said if key not in names
    ]
    values = {}
    for name in names:
        value = said.get(name)
        if value is not None and not _is_usd(value):
            problems.append(f"ceilings: {name} is an amount in USD, 0 or more")
        elif value is not None:
            values[name] = float(value)
    return Ceilings(**values), problems


def read_allowed(said: Any) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the judges that are allowed, None for all, and what is wrong with the list."""
    if said is None:
        return None, []
    if not isinstance(said, list | tuple) or not all(isinstance(entry, str) for entry in said):
        return None, ["allowed_judges is a list: names of judges, or patterns `provider/model`"]
    return tuple(entry.strip() for entry in said), []


def overridden(
    ceilings: Ceilings, allowed: tuple[str, ...] | None, environment: Mapping[str, str]
) -> tuple[Ceilings, tuple[str, ...] | None, list[str]]:
    """Return ceilings and allowed judges as the environment has them, and what is wrong there."""
    problems = []
    for name, variable in VARIABLES.items():
        text = environment.get(variable, "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not _is_usd(value):
            problems.append(f"{variable} is an amount in USD, 0 or more")
            continue
        ceilings = replace(ceilings, **{name: value})
    judges = environment.get(JUDGES_VARIABLE, "").strip()
    if judges:
        allowed = tuple(entry.strip() for entry in judges.split(",") if entry.strip())
    return ceilings, allowed, problems


def _is_usd(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value < 1e9

"""Profiles: how hard single calls may press on their providers, and where each value came from.

A profile is resolved field by field from four layers: built-in, configured (`profiles.yaml` in the
home folder), the environment (`CJ_PROFILE_CONCURRENCY=8`) and explicit (`profile_set` in
`batch.yaml`, `--set` on the command line). Everything here is pure; `steps.live_profile` reads the
file, and `live.engine` does what a profile says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cj_pipeline.ids import unknown

Mode = Literal["serial", "lazy-parallel"]
Source = Literal["default", "built-in", "configured", "environment", "explicit"]

LONGEST_CALL_S = 600.0
"""What a call is given where a profile clears its timeout: no call waits for ever."""

USUAL_CONCURRENCY = 4
USUAL_WINDOW_S = 60.0
MOST_AT_ONCE = 1024
"""Calls in flight or waiting; beyond this the machine's own sockets are the limit."""


@dataclass(frozen=True)
class Profile:
    """What bounds single calls; None where a field is cleared.

    Attributes:
        mode: One call after the other, or as many at once as `concurrency` says.
        concurrency: Calls in flight at once, per judge. Cleared: the usual 4.
        queue: Calls that may be ready and wait for their permit, per judge. Cleared: twice as
            many as may be in flight.
        timeout_seconds: For one try of one call. Cleared: ten minutes.
        wait_timeout_seconds: From when a call requests its permit until its last attempt may begin,
            waiting and earlier tries included. Cleared: for as long as it takes.
        result_ttl_seconds: How long a call that was not sent may still be sent, from when
            it was recorded; later it ends as expired. Cleared: always.
        chunk_size: How many permits are acquired at once. Cleared: as many as may be in flight.
        rate_limit: Calls that may begin within any `rate_window_seconds`, over all processes.
        rate_window_seconds: The length of that window.
        checkpoint_every: Replies after which the store is written and watchers see progress.
            Cleared: every two seconds, however many there are.
    """

    mode: Mode = "lazy-parallel"
    concurrency: int | None = USUAL_CONCURRENCY
    queue: int | None = None
    timeout_seconds: float | None = 120.0
    wait_timeout_seconds: float | None = None
    result_ttl_seconds: float | None = None
    chunk_size: int | None = None
    rate_limit: int | None = None
    rate_window_seconds: float | None = None
    checkpoint_every: int | None = 25

    @property
    def workers(self) -> int:
        """Calls in flight at once, per judge."""
        return 1 if self.mode == "serial" else self.concurrency or USUAL_CONCURRENCY

    @property
    def turns_at_once(self) -> int:
        """How many permits are acquired at once."""
        return min(self.workers, self.chunk_size or self.workers)

    @property
    def call_timeout_s(self) -> float:
        """The longest one try may take."""
        return self.timeout_seconds or LONGEST_CALL_S


BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "smoke": {"mode": "serial", "timeout_seconds": 30, "checkpoint_every": 10},
    "ci": {
        "mode": "lazy-parallel",
        "concurrency": 4,
        "chunk_size": 4,
        "timeout_seconds": 30,
        "wait_timeout_seconds": 120,
        "checkpoint_every": 25,
    },
    "nightly": {
        "mode": "lazy-parallel",
        "concurrency": 16,
        "chunk_size": 16,
        "timeout_seconds": 120,
        "wait_timeout_seconds": 600,
        "rate_limit": 60,
        "rate_window_seconds": 60,
        "checkpoint_every": 100,
    },
}
"""`default` is for a batch that names no profile, and what a profile of one's own builds on."""

FIELDS = tuple(field.name for field in fields(Profile))
COUNTS = ("concurrency", "queue", "chunk_size", "rate_limit", "checkpoint_every")
SECONDS = (
    "timeout_seconds",
    "wait_timeout_seconds",
    "result_ttl_seconds",
    "rate_window_seconds",
)
PARALLEL_ONLY = ("concurrency", "queue", "chunk_size")

_RANK: Mapping[Source, int] = {
    "default": 0,
    "built-in": 1,
    "configured": 2,
    "environment": 3,
    "explicit": 4,
}


@dataclass(frozen=True)
class ResolvedProfile:
    """A profile in force, each field's source, and a note where a rule changed what it said."""

    name: str
    values: Profile
    sources: Mapping[str, Source]
    notes: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, to be stored with a batch."""
        return {
            "name": self.name,
            "values": {name: getattr(self.values, name) for name in FIELDS},
            "sources": dict(self.sources),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> ResolvedProfile:
        """Return the profile that `as_json` wrote."""
        return cls(kept["name"], Profile(**kept["values"]), kept["sources"], kept["notes"])


def usual_profile() -> ResolvedProfile:
    """Return what a batch gets that names no profile."""
    resolved, _ = resolve_profile("default")
    assert resolved is not None  # noqa: S101 -- built in, and tested
    return resolved


def known_profiles(configured: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the names of all profiles: the built-in ones, then the user's own."""
    own = sorted(set(map(str, configured or {})) - set(BUILT_IN))
    return (*BUILT_IN, *own)


def resolve_profile(
    name: str,
    configured: Mapping[str, Any] | None = None,
    explicit: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[ResolvedProfile | None, list[str]]:
    """Return the profile in force, or None and everything that is wrong with it.

    Args:
        name: Of a built-in or configured profile.
        configured: The user's own, fields by profile name; wins over a built-in of that name.
        explicit: What was set explicitly; wins over all. Texts are read as numbers, an empty one
            falls back to what is inherited, `none` and `null` clear a number.
        environment: Its variables `CJ_PROFILE_...` are fields; they win over what is configured.
    """
    configured = configured or {}
    problems: list[str] = []
    own = _configured(name, configured, problems)
    if not name.strip():
        problems.append("the profile's name is empty: name one, or leave the option out")
    elif name not in BUILT_IN and name not in configured:
        known = known_profiles(configured)
        problems.append(f"{unknown('profile', name, known)} (known: {', '.join(known)})")
    layers: tuple[tuple[Source, Mapping[str, Any]], ...] = (
        ("built-in", BUILT_IN.get(name, {})),
        ("configured", own),
        ("environment", fields_in(environment or {})),
        ("explicit", explicit or {}),
    )
    draft = _Draft({field: getattr(Profile(), field) for field in FIELDS})
    for source, layer in layers:
        for key, value in layer.items():
            _lay(draft, source, key, value, problems)
    if "profiles" in configured and name != "profiles":
        problems.append(
            "profiles.yaml has `profiles:` at its top: write the profiles there by name, without it"
        )
    _settle_mode(draft, problems)
    _settle_chunk(draft, problems)
    _settle_rate(draft, problems)
    values = Profile(**draft.values)
    problems += _cannot_finish(values)
    if problems:
        return None, problems
    return ResolvedProfile(name, values, draft.sources, draft.notes), []


@dataclass(frozen=True)
class SharedRate:
    """Calls that may begin within a window, and what sets that."""

    name: str
    limit: int
    window_s: float


def rate_of(profile: Profile) -> list[SharedRate]:
    """Return the rate that a profile sets; empty where it sets none."""
    if profile.rate_limit is None or profile.rate_window_seconds is None:
        return []
    return [SharedRate("rate_limit", profile.rate_limit, profile.rate_window_seconds)]


def unfinishable_wave(
    profile: Profile,
    n_calls: int,
    *,
    rates: Sequence[SharedRate] | None = None,
    judges: Sequence[str] = (),
) -> list[str]:
    """Return why a wave's calls could not all be sent before they expire, or wait too long.

    Args:
        profile: What bounds them.
        n_calls: To one model of one account, so under the same limits.
        rates: All that bound these calls; the profile's own where left out.
        judges: Whose calls they are, where there are several.
    """
    whose = f"{len(judges)} judges that share its limits" if len(judges) > 1 else "one judge"
    problems = []
    for rate in rate_of(profile) if rates is None else rates:
        problems += _expiring(profile, n_calls, rate, whose)
        if len(judges) > 1 or rate.name != "rate_limit":
            problems += _waiting(profile, rate, max(1, len(judges)), whose)
    return problems


def _expiring(profile: Profile, n_calls: int, rate: SharedRate, whose: str) -> list[str]:
    ttl, limit, window = profile.result_ttl_seconds, rate.limit, rate.window_s
    if ttl is None:
        return []
    least_s = (math.ceil(n_calls / limit) - 1) * window
    if least_s <= ttl:
        return []
    n_windows = int(ttl // window) + 1
    return [
        f"a wave requests {n_calls} comparisons from {whose}; at {limit} per {window:g} s the"
        f" last is sent after {least_s:g} s, and result_ttl_seconds is {ttl:g}: set"
        f" result_ttl_seconds to at least {least_s:g}, {rate.name} to at least"
        f" {math.ceil(n_calls / n_windows)}, or let a wave request at most {limit * n_windows}"
    ]


def _waiting(profile: Profile, rate: SharedRate, n_judges: int, whose: str) -> list[str]:
    """The permits of one judge's chunk may come after those of all others."""
    wait, timeout = profile.wait_timeout_seconds, profile.call_timeout_s
    if wait is None:
        return []
    at_once = profile.turns_at_once * n_judges
    longest = math.ceil(at_once / rate.limit) * rate.window_s + timeout
    if longest <= wait:
        return []
    ways = [f"wait_timeout_seconds to at least {longest:g}"]
    n_windows = int((wait - timeout) // rate.window_s)
    if n_windows > 0:
        ways.append(f"{rate.name} to at least {math.ceil(at_once / n_windows)}")
        if n_windows * rate.limit >= n_judges:
            ways.append(f"chunk_size to at most {n_windows * rate.limit // n_judges}")
    return [
        f"{at_once} calls of {whose} at {rate.limit} per {rate.window_s:g} s may wait"
        f" {longest - timeout:g} s for their permits and then {timeout:g} s for an answer,"
        f" {longest:g} s in all, and wait_timeout_seconds is {wait:g}: set {', or '.join(ways)}"
    ]


class _Draft:
    """A profile while its layers are laid: values, where they came from, what rules changed."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.sources: dict[str, Source] = dict.fromkeys(values, "default")
        self.notes: dict[str, str] = {}

    def rank(self, field: str) -> int:
        """Return how close to the caller's own choice a field was set."""
        return _RANK[self.sources[field]]

    def said(self, field: str) -> str:
        """Return a field's value and source, as a problem names them."""
        value = self.values[field]
        shown = "none" if value is None else f"{value:g}" if field in SECONDS else value
        return f"{field} {shown} ({self.sources[field]})"

    def drop(self, field: str, note: str) -> None:
        """Clear an inherited field that another one rules out."""
        self.values[field] = None
        self.notes[field] = note


IN_ENVIRONMENT = "CJ_PROFILE_"
ALSO_CALLED: Mapping[str, str] = {"queue_depth": "queue"}
"""Other words for a field."""


def fields_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a profile that environment variables set, such as `CJ_PROFILE_QUEUE`."""
    return {
        key.removeprefix(IN_ENVIRONMENT).lower(): value
        for key, value in sorted(environment.items())
        if key.startswith(IN_ENVIRONMENT)
    }


def _configured(name: str, configured: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any]:
    own = configured.get(name, {})
    if own is None:
        return {}
    if not isinstance(own, Mapping):
        problems.append(f"the configured profile {name!r} must hold fields, not {own!r}")
        return {}
    return own


def _lay(draft: _Draft, source: Source, key: object, value: object, problems: list[str]) -> None:
    field = ALSO_CALLED.get(str(key), str(key))
    if field not in FIELDS:
        problems.append(unknown(f"{source} profile field", str(key), FIELDS))
        return
    if field == "queue" and _is_a_name(value):
        problems.append(
            f"queue ({source}) is the depth of the queue (also called queue_depth), and {value!r}"
            " names a queue: there are no named queues here; whose calls go first is the batch's"
            " `priority` (low, normal, high)"
        )
        return
    if isinstance(value, str) and not value.strip():
        return  # an empty flag says nothing
    try:
        parsed = _parsed(field, value)
    except ValueError as error:
        problems.append(f"{field} ({source}) {error}, and is {value!r}")
        return
    draft.values[field] = parsed
    draft.sources[field] = source


def _is_a_name(value: object) -> bool:
    """Whether a text is meant as the name of a queue: it has a letter first and is no keyword."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return word[:1].isalpha() and word not in {"none", "null", "nan", "inf", "infinity"}


def _parsed(field: str, value: object) -> str | int | float | None:
    """Return a field's value.

    Raises:
        ValueError: If it cannot have this one; the message says what it must be.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    if field == "mode":
        if word not in ("serial", "lazy-parallel"):
            msg = "must be serial or lazy-parallel"
            raise ValueError(msg)
        return str(word)
    if word in (None, "none", "null"):
        return None
    return _count(word) if field in COUNTS else _seconds(word)


def _count(value: object) -> int:
    msg = f"must be a whole number from 1 to {MOST_AT_ONCE * 1024}, or none"
    number = _number(value, msg)
    if number != int(number) or not 1 <= number <= MOST_AT_ONCE * 1024:
        raise ValueError(msg)
    return int(number)


def _seconds(value: object) -> float:
    msg = "must be a number of seconds above 0, at most a year, or none"
    number = _number(value, msg)
    if not 0 < number <= 366 * 86_400:
        raise ValueError(msg)
    return number


def _number(value: object, msg: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(msg)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(msg) from None
    if not math.isfinite(number):
        raise ValueError(msg)
    return number


def _settle_mode(draft: _Draft, problems: list[str]) -> None:
    """Serial refuses what only parallel calls have; what it merely inherited falls away."""
    if draft.values["mode"] != "serial":
        for field in ("concurrency", "queue"):
            value = draft.values[field]
            if value is not None and value > MOST_AT_ONCE:
                problems.append(f"{draft.said(field)} is above {MOST_AT_ONCE}, the most there is")
        return
    for field in PARALLEL_ONLY:
        if draft.values[field] is None:
            continue
        if draft.sources[field] != "default" and draft.rank(field) >= draft.rank("mode"):
            problems.append(
                f"{draft.said(field)} has no meaning in mode serial ({draft.sources['mode']}):"
                f" leave {field} out, or set mode to lazy-parallel"
            )
        draft.drop(field, "dropped: the mode is serial")


def _settle_chunk(draft: _Draft, problems: list[str]) -> None:
    chunk = draft.values["chunk_size"]
    most = draft.values["concurrency"] or USUAL_CONCURRENCY
    if draft.values["mode"] == "serial" or chunk is None:
        return
    if draft.values["concurrency"] is None or draft.sources["concurrency"] == "default":
        if draft.rank("concurrency") > draft.rank("chunk_size"):
            draft.drop("chunk_size", "dropped: there is no concurrency")
        else:
            problems.append(
                f"{draft.said('chunk_size')} needs a concurrency: set one, of at least {chunk}, or"
                " leave chunk_size out"
            )
        return
    if chunk <= most:
        return
    if draft.rank("concurrency") > draft.rank("chunk_size"):
        draft.notes["chunk_size"] = f"capped from {chunk} by the lower concurrency"
    else:
        problems.append(
            f"{draft.said('chunk_size')} is above {draft.said('concurrency')}: set chunk_size to"
            f" at most {most}, or concurrency to at least {chunk}"
        )
    draft.values["chunk_size"] = most


def _settle_rate(draft: _Draft, problems: list[str]) -> None:
    limit, window = draft.values["rate_limit"], draft.values["rate_window_seconds"]
    by_whom = (draft.rank("rate_limit"), draft.rank("rate_window_seconds"))
    if limit is None and window is not None:
        if by_whom[0] <= by_whom[1]:
            problems.append(
                f"{draft.said('rate_window_seconds')} needs a rate_limit: set one, or leave the"
                " window out"
            )
        draft.drop("rate_window_seconds", "dropped: there is no rate limit")
    elif limit is not None and window is None:
        if draft.sources["rate_window_seconds"] != "default" and by_whom[1] >= by_whom[0]:
            problems.append(
                f"{draft.said('rate_limit')} needs a rate_window_seconds, which was cleared: set"
                " one, or set rate_limit to none as well"
            )
        draft.values["rate_window_seconds"] = USUAL_WINDOW_S
        draft.notes["rate_window_seconds"] = "the usual window of a rate limit without one"


def _cannot_finish(profile: Profile) -> list[str]:
    """Return why a chunk's calls could not all begin and end within the wait allowed."""
    wait, timeout = profile.wait_timeout_seconds, profile.call_timeout_s
    if wait is None:
        return []
    if timeout > wait:
        was = f"timeout_seconds is {timeout:g}"
        if profile.timeout_seconds is None:
            was = f"timeout_seconds is cleared, so a call may take {timeout:g} s"
        return [
            f"{was}, and wait_timeout_seconds is {wait:g}: one call could outlast the wait. Set"
            f" timeout_seconds to at most {wait:g}, or wait_timeout_seconds to at least"
            f" {timeout:g}"
        ]
    limit, window = profile.rate_limit, profile.rate_window_seconds
    if limit is None or window is None:
        return []
    chunk = profile.turns_at_once
    longest = math.ceil(chunk / limit) * window + timeout
    if longest <= wait:
        return []
    n_windows = int((wait - timeout) // window)
    ways = [f"wait_timeout_seconds to at least {longest:g}"]
    if n_windows:
        ways.append(f"rate_limit to at least {math.ceil(chunk / n_windows)}")
        if n_windows * limit < chunk:
            ways.append(f"chunk_size to at most {n_windows * limit}")
    else:
        ways.append(
            f"rate_window_seconds to at most {(wait - timeout) / math.ceil(chunk / limit):g}"
        )
    return [
        f"{chunk} calls at {limit} per {window:g} s may wait {longest - timeout:g} s for their"
        f" permits and then {timeout:g} s for an answer, {longest:g} s in all, and"
        f" wait_timeout_seconds is {wait:g}: set {', or '.join(ways)}"
    ]


def with_workers(profile: Profile, workers: int) -> Profile:
    """Return a profile that has so many calls in flight, as a serial bundle has one."""
    if workers == 1:
        cleared = dict.fromkeys(PARALLEL_ONLY)
        return replace(profile, mode="serial", **cleared)
    return replace(profile, mode="lazy-parallel", concurrency=workers, chunk_size=None)

"""How far a batch has come, when it will be complete, and how it came out: plain values.

What the store holds becomes a `Progress` in `progress.events`, which also stores the
events. They are reported once each and in order; the last is `ended`, with one `BatchOutcome`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cj_pipeline.stopping.continuation import BatchOutcome

MIN_GAPS = 3
"""Between landings, before their own spread gives the certainty of the time left."""

MAX_LANDINGS = 20
"""The last ones count: a provider that has slowed down is not judged by its morning."""

DEFAULT_CHECKPOINTS = 40
"""How many checkpoints a batch has where no profile says how often."""


class EventKind(StrEnum):
    """What an event reports."""

    OPENED = "opened"
    ASKED = "asked"
    CHECKPOINT = "checkpoint"
    DECIDED = "decided"
    CANCELLING = "cancelling"
    ENDED = "ended"


@dataclass(frozen=True)
class Landing:
    """How many comparisons were completed at a moment."""

    at: datetime
    n_done: int


@dataclass(frozen=True)
class Eta:
    """How long until everything that may be requested is completed, in seconds, at 95 %.

    A batch whose rules let it stop early may end sooner.
    """

    seconds: float
    low_seconds: float
    high_seconds: float


@dataclass(frozen=True)
class TargetProgress:
    """How far one judge of a batch has come.

    Attributes:
        judge_id: The judge's fingerprint.
        name: As the batch names it.
        provider: What it is reached through.
        model: Its model.
        status: `waiting` (nothing requested yet), `asking`, `failing` (more than half of what ended
            failed) or `done` (nothing is open at the moment).
        n_asked: Comparisons.
        n_done: Of these, those that are completed, or that the provider counts as done.
        n_succeeded: With a verdict.
        n_failed: Failed for good.
        n_in_flight: Requests without an answer.
        comparisons_per_s: From its first request to its latest answer; None before that.
        tokens: Prompt and completion, over all attempts.
        cost_usd: Billed.
    """

    judge_id: str
    name: str
    provider: str
    model: str
    status: str
    n_asked: int
    n_done: int
    n_succeeded: int
    n_failed: int
    n_in_flight: int
    comparisons_per_s: float | None
    tokens: int
    cost_usd: float


@dataclass(frozen=True)
class Progress:
    """A batch's progress at one moment.

    Attributes:
        batch_id: The batch.
        state: As `batches` has it.
        end_reason: Why it ended; None while it runs.
        outcome: How it came out; None while it runs.
        is_cancelling: Whether a person has requested its end and it is not there yet.
        wave: The last wave planned; 0 before the first.
        n_expected: Comparisons at which the batch is at its end, should no rule end it sooner.
        may_end_sooner: Whether such a rule is on.
        n_asked: Comparisons requested so far.
        n_done: Those that are completed, or that their provider counts as done.
        n_succeeded: Comparisons with a verdict.
        n_failed: Comparisons that failed for good.
        n_in_flight: Requests without an answer.
        share_done: Of `n_expected`; 1 once the batch has its scores and below 1 until then, and
            never less than before.
        comparisons_per_s: Lately; None while unknown.
        eta: None while unknown.
        cost_usd: Billed so far.
        reserved_usd: Held for what is not settled: at worst this much more is billed for it.
        projected_usd: Expected in all, at the mean cost so far; None while unknown.
        spend_cap_usd: What it may cost; None where there is no cap.
        targets: Its judges, by name.
        at: When this was so.
    """

    batch_id: str
    state: str
    end_reason: str | None
    outcome: BatchOutcome | None
    is_cancelling: bool
    wave: int
    n_expected: int
    may_end_sooner: bool
    n_asked: int
    n_done: int
    n_succeeded: int
    n_failed: int
    n_in_flight: int
    share_done: float
    comparisons_per_s: float | None
    eta: Eta | None
    cost_usd: float
    reserved_usd: float
    projected_usd: float | None
    spend_cap_usd: float | None
    targets: tuple[TargetProgress, ...]
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it; the time in ISO 8601, UTC."""
        return asdict(self) | {
            "outcome": self.outcome.value if self.outcome else None,
            "targets": [asdict(target) for target in self.targets],
            "at": self.at.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """Return what `as_json` wrote down."""
        return cls(
            **{
                **value,
                "outcome": BatchOutcome(value["outcome"]) if value["outcome"] else None,
                "eta": Eta(**value["eta"]) if value["eta"] else None,
                "targets": tuple(TargetProgress(**target) for target in value["targets"]),
                "at": datetime.fromisoformat(value["at"]),
            }
        )


@dataclass(frozen=True)
class ProgressEvent:
    """One thing that happened to a batch, and how it then stood.

    Attributes:
        batch_id: The batch.
        sequence: Counts from 1 within the batch, without gaps.
        kind: What happened.
        checkpoint: The last multiple of the checkpoint's size that `n_done` has passed.
        progress: How the batch stood.
        at: When.
    """

    batch_id: str
    sequence: int
    kind: EventKind
    checkpoint: int
    progress: Progress
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "batch_id": self.batch_id,
            "sequence": self.sequence,
            "kind": self.kind.value,
            "checkpoint": self.checkpoint,
            "progress": self.progress.as_json(),
            "at": self.at.isoformat(),
        }


def checkpoint_size(n_expected: int, configured: int | None) -> int:
    """Return the comparisons between two reports: as configured, or a fortieth of all."""
    return configured or max(1, math.ceil(n_expected / DEFAULT_CHECKPOINTS))


def last_checkpoint(n_done: int, size: int) -> int:
    """Return the last checkpoint at or before `n_done` comparisons."""
    return n_done // size * size


def throughput(landings: Sequence[Landing], now: datetime) -> float | None:
    """Return comparisons per second lately; None before anything has landed."""
    gaps = _gaps(landings)
    return _rate(gaps, _waited(landings, now)) if gaps else None


def time_left(landings: Sequence[Landing], n_left: int, now: datetime) -> Eta | None:
    """Return how long the comparisons left will take, at the pace of the last landings.

    Comparisons land in chunks. The chunks' sizes and the times between them are taken as alike from
    chunk to chunk and independent, so the time left is a ratio estimate; its interval has the
    spread of the chunks to come and the uncertainty of the pace. One or two gaps show next to
    nothing of that spread: they are taken to be as irregular as chance alone makes them, which most
    providers are not, so the interval is wide. Before anything has landed: None.

    Args:
        landings: Oldest first; the first is the time of the first request.
        n_left: Comparisons still to come.
        now: Measured from here.
    """
    from scipy.special import stdtrit

    gaps = _gaps(landings)
    if n_left <= 0:
        return Eta(0.0, 0.0, 0.0)
    if not gaps:
        return None
    waited = _waited(landings, now)
    rate = _rate(gaps, waited)
    n = sum(size for _, size in gaps)
    gaps_left = n_left * len(gaps) / n
    expected = max(0.0, n_left / rate - min(waited, _mean_gap(gaps)))
    if len(gaps) < MIN_GAPS:
        low, high = (n / rate * each for each in _ratio_interval(gaps_left, len(gaps)))
        return Eta(expected, min(expected, low), max(expected, high))
    residual = sum((seconds - size / rate) ** 2 for seconds, size in gaps) / (len(gaps) - 1)
    spread = residual * (gaps_left + gaps_left**2 / len(gaps))
    half_width = float(stdtrit(len(gaps) - 1, 0.975)) * math.sqrt(spread)
    return Eta(expected, max(0.0, expected - half_width), expected + half_width)


def _ratio_interval(gaps_left: float, n_gaps: int) -> tuple[float, float]:
    """Return between which multiples of the time observed the time left is, at 95 %.

    Gaps are taken as exponential and of one mean that nothing is known of: the time left is then
    a share of all the time that is Beta(gaps_left, n_gaps).

    Args:
        gaps_left: Gaps, at least a part of one.
        n_gaps: Gaps observed.
    """
    from scipy.special import betaincinv

    # By what is left of the whole, which rounds to nothing where the share is next to 1.
    left = betaincinv(n_gaps, gaps_left, [0.975, 0.025])
    low, high = (1 - left) / left
    return float(low), float(high)


def _gaps(landings: Sequence[Landing]) -> list[tuple[float, int]]:
    """Return seconds and comparisons of each step up in the count; steps down are passed over.

    What landed and then failed to be a verdict is retried, so the count may go down a little.
    """
    rises: list[Landing] = []
    for landing in landings:
        if not rises or landing.n_done > rises[-1].n_done:
            rises.append(landing)
    rises = rises[-MAX_LANDINGS - 1 :]
    return [
        (max((b.at - a.at).total_seconds(), 1e-6), b.n_done - a.n_done)
        for a, b in itertools.pairwise(rises)
    ]


def _rate(gaps: Sequence[tuple[float, int]], waited: float) -> float:
    """A wait longer than usual counts against the pace; a shorter one is no evidence yet."""
    seconds = sum(gap for gap, _ in gaps) + max(0.0, waited - _mean_gap(gaps))
    return sum(size for _, size in gaps) / seconds


def _mean_gap(gaps: Sequence[tuple[float, int]]) -> float:
    return sum(gap for gap, _ in gaps) / len(gaps)


def _waited(landings: Sequence[Landing], now: datetime) -> float:
    highest = max(landing.n_done for landing in landings)
    latest = next(landing.at for landing in landings if landing.n_done == highest)
    return max(0.0, (now - latest).total_seconds())

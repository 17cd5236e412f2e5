"""How far a run of a trial is from the runs before it: scores, grades, cost, duration, agreement.

Judges at a provider change without notice; the same batch judged every night shows it. A noisy
judge differs from itself too, so scores count as changed only beyond their errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from cj_pipeline.trials.figures import Figure

if TYPE_CHECKING:
    from cj_pipeline.queries.history import BatchHistory
    from cj_pipeline.trials.definitions import DriftBands

MOST_RUNS_BEFORE = 20
"""Whose cost and duration make the median that a run is held against."""


@dataclass(frozen=True)
class TrialDrift:
    """What differs from the run before, and what of that is beyond the trial's bands.

    Attributes:
        compared_with: The batch of the run before.
        n_runs_before: Runs of the same definition that make the medians below.
        n_shared: Essays with a score in both.
        essays_beyond_noise: Those whose score changed beyond its errors; None with too few shared.
        largest_change: In logits.
        spread_ratio: Standard deviation of the scores now over before; None where it was 0.
        rank_correlation: Spearman's.
        same_grade: The share of students with the same grade.
        agreement: The share of pairs judged in both that had the same verdict; None without any.
        cost_ratio: Over the median before; None where that was free.
        duration_ratio: Over the median before.
        drifted: In words, each figure that is outside its band, and each judge that another model
            answered for.
    """

    compared_with: str
    n_runs_before: int
    n_shared: int
    essays_beyond_noise: int | None
    largest_change: float | None
    spread_ratio: float | None
    rank_correlation: float | None
    same_grade: float | None
    agreement: float | None
    cost_ratio: float | None
    duration_ratio: float | None
    drifted: tuple[str, ...]


def drift_between(
    before: BatchHistory,
    after: BatchHistory,
    figures: Mapping[str, Figure],
    figures_before: Sequence[Mapping[str, Figure]],
    bands: DriftBands,
) -> TrialDrift:
    """Return how far a run is from the one before.

    Args:
        before: The last run of the same definition.
        after: This run.
        figures: This run's, as `trial_figures` names them.
        figures_before: Of the earlier runs, newest first.
        bands: How far is too far.
    """
    from cj_pipeline.outputs.side_by_side import changes

    found = changes(before, after)
    compared = bool(found.essays)
    measured = {
        "essays_beyond_noise": found.n_beyond_noise if compared else None,
        "spread_ratio": _ratio(figures, figures_before[:1], "score_spread"),
        "same_grade": found.same_grade,
        "rank_correlation": found.rank_correlation,
        "agreement": verdict_agreement(before, after),
        "cost_ratio": _ratio(figures, figures_before, "cost_usd"),
        "duration_ratio": _ratio(figures, figures_before, "duration_s"),
    }
    return TrialDrift(
        compared_with=before.batch_id,
        n_runs_before=len(figures_before),
        n_shared=len(found.essays),
        largest_change=max((abs(each.change) for each in found.essays), default=None),
        drifted=(*_outside(measured, bands), *_other_models(before, after)),
        **measured,  # type: ignore[arg-type]
    )


def _other_models(before: BatchHistory, after: BatchHistory) -> tuple[str, ...]:
    """Return in words which judges other models answered for in the run before."""
    from cj_pipeline.diagnostics.answering_models import models_that_differ, who_answered

    return models_that_differ(
        who_answered(before.attempts, before.judges),
        who_answered(after.attempts, after.judges),
        "the run before",
    )


def verdict_agreement(before: BatchHistory, after: BatchHistory) -> float | None:
    """Return how often a verdict of each, drawn at random on a pair both judged, is the same.

    A tie agrees with a tie; the order in which essays were shown does not matter.
    """
    one, other = _winners(before), _winners(after)
    shared = one.keys() & other.keys()
    if not shared:
        return None
    return sum(_chance_alike(one[pair], other[pair]) for pair in shared) / len(shared)


def _winners(history: BatchHistory) -> Mapping[frozenset[str], list[str]]:
    winners: dict[frozenset[str], list[str]] = defaultdict(list)
    for row in history.succeeded:
        winners[frozenset((row["essay_a"], row["essay_b"]))].append(row["winner_id"] or "tie")
    return winners


def _chance_alike(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a == b for a in one for b in other) / (len(one) * len(other))


def _ratio(
    figures: Mapping[str, Figure], before: Sequence[Mapping[str, Figure]], name: str
) -> float | None:
    known = [float(each[name]) for each in before if isinstance(each.get(name), int | float)]  # type: ignore[arg-type]
    usual, now = median(known) if known else 0.0, figures.get(name)
    return float(now) / usual if usual > 0 and isinstance(now, int | float) else None


_AT_LEAST = frozenset({"same_grade", "rank_correlation", "agreement"})


def _outside(measured: Mapping[str, float | int | None], bands: DriftBands) -> list[str]:
    outside = []
    for name, value in measured.items():
        band = getattr(bands, name)
        if value is None or band is None:
            continue
        if name in _AT_LEAST and value < band:
            outside.append(f"{name} is {value:.3g}, below {band:g}")
        elif name == "spread_ratio" and value * band < 1:
            outside.append(f"{name} is {value:.3g}, below {1 / band:.2g}")
        elif name not in _AT_LEAST and value > band:
            outside.append(f"{name} is {value:.3g}, above {band:g}")
    return outside

"""Batches side by side, what they came to and what changed beyond noise; and judges.

Two batches that share essays (a trial repeated with another judge, prompt or budget) are put on
one scale by those essays before anything is compared. Scores of batches that share nothing say
nothing about each other, so only their figures are shown side by side.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.diagnostics.changes import MIN_SHARED, ScoreChange, score_changes
from cj_pipeline.outputs.feedback import written_grade
from cj_pipeline.outputs.html import render_page, words
from cj_pipeline.outputs.language import dollars
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.scale.certainty import SCORE_VERSION

_MAX_SHOWN = 200


@dataclass(frozen=True)
class BatchFigures:
    """What one batch came to; None where it has no such figure."""

    batch_id: str
    title: str
    state: str
    end_reason: str | None
    is_simulated: bool
    judges: tuple[str, ...]
    scale: str | None
    n_students: int
    n_anchors: int
    n_waves: int
    n_verdicts: int
    n_failed: int
    cost_usd: float
    reliability: float | None
    mean_standard_error: float | None
    grades: Mapping[str, int]


@dataclass(frozen=True)
class EssayChange(ScoreChange):
    """One essay in two batches.

    Attributes:
        is_anchor: In the first batch.
        grade_before, grade_after: None where a batch has no grades.
    """

    is_anchor: bool
    grade_before: str | None
    grade_after: str | None


@dataclass(frozen=True)
class Changes:
    """What differs between two batches over the essays they share.

    Attributes:
        before, after: The batches' names.
        essays: Largest change in standard errors first; empty with fewer than `MIN_SHARED`.
        spread_ratio: The second batch's standard deviation of scores over the first's: above 1
            its judge discriminated more clearly, which alone moves scores outwards.
        rank_correlation: Spearman's; None without two different scores in each.
        same_grade: The share of students with the same grade in both; None without grades.
    """

    before: str
    after: str
    essays: tuple[EssayChange, ...]
    spread_ratio: float | None
    rank_correlation: float | None
    same_grade: float | None

    @property
    def seen_from(self) -> float | None:
        """The change that one essay would typically have been called changed for, in logits."""
        if not self.essays:
            return None
        return float(np.median([essay.could_be_seen for essay in self.essays]))

    @property
    def n_beyond_noise(self) -> int:
        """How many essays changed beyond the errors of their scores."""
        return sum(essay.is_beyond_noise for essay in self.essays)


def batch_figures(history: BatchHistory) -> BatchFigures:
    """Return what a batch came to."""
    details = history.last_details
    students = [row for row in history.projections if not row["is_anchor"]]
    steps = list(students[0]["probabilities"]) if students else []
    counts = Counter(row["grade"] for row in students)
    return BatchFigures(
        batch_id=history.batch_id,
        title=history.batch["title"],
        state=history.batch["state"],
        end_reason=history.batch["end_reason"],
        is_simulated=history.is_simulated,
        judges=tuple(row["name"] for row in history.judges),
        scale=history.scale,
        n_students=len(history.essays) - len(history.anchor_grades),
        n_anchors=len(history.anchor_grades),
        n_waves=len(history.decisions),
        n_verdicts=len(history.succeeded),
        n_failed=len(history.failed),
        cost_usd=math.fsum(row["cost_usd"] or 0.0 for row in history.attempts),
        reliability=details.get("empirical_bayes_reliability"),
        mean_standard_error=details.get("bt_se_summary", {}).get("mean_se"),
        grades={grade: counts[grade] for grade in steps if counts[grade]},
    )


def changes(before: BatchHistory, after: BatchHistory) -> Changes:
    """Return what differs over the essays two batches share: same id and same text.

    See `score_changes` for how scores are compared; the largest change in standard errors is first.
    """
    shared = [
        row["essay_id"]
        for row in before.essays
        if row["essay_id"] in before.score_by_id and _is_same_essay(row, after)
    ]
    found = score_changes(_Scored.of(before, shared), _Scored.of(after, shared), shared)
    if not found:
        return Changes(before.batch_id, after.batch_id, (), None, None, None)
    one = np.array([each.before for each in found])
    other = np.array([each.after for each in found])
    essays = [
        EssayChange(
            **vars(each),
            is_anchor=before.essay_by_id[each.essay_id]["is_anchor"],
            grade_before=_grade(before, each.essay_id),
            grade_after=_grade(after, each.essay_id),
        )
        for each in found
    ]
    is_ranked = np.ptp(one) > 0 and np.ptp(other) > 0
    return Changes(
        before=before.batch_id,
        after=after.batch_id,
        essays=tuple(sorted(essays, key=lambda e: -abs(e.change) / e.standard_error)),
        spread_ratio=float(other.std() / one.std()) if is_ranked else None,
        rank_correlation=_spearman(one, other) if is_ranked else None,
        same_grade=_same_grade(before, after, essays),
    )


def figure_rows(figures: Sequence[BatchFigures]) -> list[tuple[str, list[str]]]:
    """Return each figure's name and its value in every batch, as text."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    return [
        ("Title", [each.title for each in figures]),
        ("Ended", [words(each.end_reason or each.state) for each in figures]),
        ("Judges", [", ".join(each.judges) for each in figures]),
        ("Scale", [each.scale or "none" for each in figures]),
        ("Students' essays", [str(each.n_students) for each in figures]),
        ("Anchors", [str(each.n_anchors) for each in figures]),
        ("Waves", [str(each.n_waves) for each in figures]),
        ("Verdicts", [str(each.n_verdicts) for each in figures]),
        ("Failed", [str(each.n_failed) for each in figures]),
        ("Cost", [dollars(each.cost_usd) for each in figures]),
        ("Reliability among students", [number(each.reliability) for each in figures]),
        ("Mean standard error", [number(each.mean_standard_error) for each in figures]),
        (
            "Grades",
            [", ".join(f"{n} × {g}" for g, n in each.grades.items()) or "–" for each in figures],
        ),
    ]


def render_side_by_side(histories: Sequence[BatchHistory]) -> str:
    """Return one page on these batches; each after the first is compared with the first."""
    figures = [batch_figures(history) for history in histories]
    return render_page(
        "side_by_side.html",
        figures=figures,
        rows=figure_rows(figures),
        changes=[changes(histories[0], each) for each in histories[1:]],
        shown=_MAX_SHOWN,
        min_shared=MIN_SHARED,
    )


def _is_same_essay(row: Row, after: BatchHistory) -> bool:
    other = after.essay_by_id.get(row["essay_id"])
    return (
        other is not None
        and other["sha256"] == row["sha256"]
        and row["essay_id"] in after.score_by_id
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    essay_ids: tuple[str, ...]
    scores: Floats
    standard_errors: Floats

    @classmethod
    def of(cls, history: BatchHistory, essay_ids: Sequence[str]) -> _Scored:
        rows = [history.last_score_by_id[essay_id] for essay_id in essay_ids]
        if any(row["score_version"] != SCORE_VERSION for row in rows):
            # What was kept when a score meant something else is no measure of a change.
            found = history.posterior()
            at = [found.place[essay_id] for essay_id in essay_ids]
            return cls(tuple(essay_ids), found.scores[at], found.standard_errors[at])
        return cls(
            tuple(essay_ids),
            np.array([row["score"] for row in rows]),
            np.array([row["standard_error"] for row in rows]),
        )


def _grade(history: BatchHistory, essay_id: str) -> str | None:
    projection = history.projection_by_id.get(essay_id)
    return written_grade(projection)


def _same_grade(
    before: BatchHistory, after: BatchHistory, essays: Sequence[EssayChange]
) -> float | None:
    """Return the share of students with the same grade in both; minus and plus are left aside."""
    graded = [
        before.projection_by_id[essay.essay_id]["grade"]
        == after.projection_by_id[essay.essay_id]["grade"]
        for essay in essays
        if not essay.is_anchor and essay.grade_before is not None and essay.grade_after is not None
    ]
    return sum(graded) / len(graded) if graded else None


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


@dataclass(frozen=True)
class ShownTable:
    """A table of a page: the first column names its rows."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def render_judges_compared(
    batch: str, tables: Sequence[ShownTable], simulated: Sequence[str]
) -> str:
    """Return the page of judges that compared the same pairs; tables without rows are left out."""
    filled = [table for table in tables if table.rows]
    return render_page(
        "judges_compared.html", batch=batch, tables=filled, simulated=list(simulated)
    )

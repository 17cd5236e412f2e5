"""What choosing the next pairs is based on: a batch's comparison graph as the store has it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import PEOPLE_FROM
from cj_pipeline.batch.options import goal_of
from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.grading.rules import grade_by
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.judge_shares import pairs_as_chosen
from cj_pipeline.pairing.warm_start import (
    initial_scores_from_earlier,
    initial_scores_from_order,
    initial_scores_from_texts,
)
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.linked_scale import linked_scale
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Scale

_SPREAD_UP_TO = 2_000
"""Essays whose spread is estimated for choosing pairs; beyond, the scores show it well enough."""


@dataclass(frozen=True)
class GraphSoFar:
    """The graph, and how much was requested of each judge.

    Attributes:
        graph: Without scores; `with_scores` adds them.
        n_requested: By judge, in the batch's order of judges; failed comparisons count.
        n_pairs: Pairs chosen, each counted once however many judges it went to.
        n_resampled: Of these, those chosen in a pass over pairs already covered.
        shares: Of the next pairs, the share each judge gets; None: as the settings say.
    """

    graph: ComparisonGraph
    n_requested: tuple[int, ...]
    n_pairs: int = 0
    n_resampled: int = 0
    shares: tuple[float, ...] | None = None


def graph_so_far(db: Session, record: BatchRecord, up_to: int | None = None) -> GraphSoFar:
    """Return the graph of what was requested of models and has not failed for good.

    People judge pairs beside it: how models go on does not depend on whether they do.

    Args:
        db: A read session.
        record: The batch.
        up_to: The last wave that counts; None for all.
    """
    rows = db.rows(
        "SELECT p.essay_a, p.essay_b, p.judge_id, p.resampling_pass, c.status"
        " FROM comparison_pairs p LEFT JOIN comparisons c USING (comparison_id)"
        " WHERE p.batch_id = $batch AND p.sequence < $from"
        " AND ($up_to IS NULL OR p.wave <= $up_to) ORDER BY p.sequence",
        {"batch": record.batch_id, "from": PEOPLE_FROM, "up_to": up_to},
    )
    requested = [(r["essay_a"], r["essay_b"], r["judge_id"]) for r in rows]
    chosen = [[rows[position] for position in pair] for pair in pairs_as_chosen(requested)]
    shown = tuple(
        (pair[0]["essay_a"], pair[0]["essay_b"])
        for pair in chosen
        if any(row["status"] != "failed" for row in pair)
    )
    n_requested = Counter(row["judge_id"] for row in rows)
    return GraphSoFar(
        graph=replace(empty_graph(record, guessed_scores(db, record)), shown=shown),
        n_requested=tuple(n_requested[judge.judge_id] for judge in record.judges),
        n_pairs=len(chosen),
        n_resampled=sum(pair[0]["resampling_pass"] > 0 for pair in chosen),
    )


def empty_graph(record: BatchRecord, expected: Floats | None = None) -> ComparisonGraph:
    """Return a batch's graph before anything was requested.

    Args:
        record: The batch.
        expected: A guess of the scores other than a rough order.
    """
    if record.settings.rough_order:
        expected = initial_scores_from_order(record.essay_ids, record.settings.rough_order)
    return ComparisonGraph(record.essay_ids, frozenset(record.anchor_grades), (), expected=expected)


def guessed_scores(db: Session, record: BatchRecord) -> Floats | None:
    """Return what the batch's head start guesses of its scores; None without one.

    An essay's earlier score is that of the same text, else of the same id.
    """
    head_start = record.settings.head_start
    if head_start is None:
        return None
    essays = db.rows(
        "SELECT text, sha256(text) AS digest FROM essays WHERE batch_id = ? ORDER BY position",
        [record.batch_id],
    )
    if head_start == "texts":
        return initial_scores_from_texts([row["text"] for row in essays])
    rows = db.rows(
        "SELECT s.essay_id, s.verdict_score AS score, sha256(e.text) AS digest"
        " FROM v_scores s JOIN essays e USING (batch_id, essay_id) WHERE s.batch_id = ?",
        [head_start.batch],
    )
    by_text = {row["digest"]: row["score"] for row in rows}
    by_id = {row["essay_id"]: row["score"] for row in rows}
    known = {
        essay_id: by_text.get(essay["digest"], by_id.get(essay_id))
        for essay_id, essay in zip(record.essay_ids, essays, strict=True)
    }
    return initial_scores_from_earlier(
        record.essay_ids, {k: v for k, v in known.items() if v is not None}
    )


def with_scores(graph: ComparisonGraph, record: BatchRecord, scale: Scale) -> ComparisonGraph:
    """Return the graph with the scale, and with the boundaries or the cut that are the goal."""
    from cj_pipeline.diagnostics.spread import likely_spread

    boundaries: tuple[float, ...] = ()
    goal = goal_of(record.settings.goal)
    by_grades = goal.kind == "grades" or goal.grade is not None
    if by_grades and (projections := provisional_grades(record, scale)):
        boundaries = tuple(
            boundary.position
            for boundary in projections.boundaries
            if goal.grade in {None, boundary.above}
        )
    return replace(
        graph,
        scores=scale.scores,
        information=scale.information,
        spread=likely_spread(scale).logits if graph.n_essays <= _SPREAD_UP_TO else None,
        boundaries=boundaries,
        n_above=goal.n_above(len(record.student_ids)),
    )


def provisional_grades(record: BatchRecord, scale: Scale) -> GradeProjections | None:
    """Return the grades if the batch ended now; None where it names no scale or has no anchors."""
    terms = record.grading_terms
    if terms is None or not record.anchor_grades:
        return None
    return grade_by(terms, scale, record.anchor_grades)


log = structlog.get_logger()

_WRITTEN_OUT_UP_TO = 1_500
"""Essays, known and new, whose covariance is written out for it; larger batches choose as ever."""


def with_linked_scores(
    db: Session,
    record: BatchRecord,
    graph: ComparisonGraph,
    scale: Scale | None,
    up_to: int | None = None,
) -> ComparisonGraph:
    """Return the graph with what earlier batches know of its essays; unchanged without any.

    Args:
        db: A read session.
        record: The batch.
        graph: With its own scores where it has a scale.
        scale: The batch's own; None before its verdicts give one.
        up_to: The last wave whose verdicts count; None for all.
    """
    if not record.settings.link_to or graph.n_essays > _WRITTEN_OUT_UP_TO:
        return graph
    if scale is None:
        return _before_first_verdict(db, record, graph)
    linked = linked_scale(db, record, scale, up_to)
    if linked is None or len(linked.essay_ids) > _WRITTEN_OUT_UP_TO:
        return graph
    own = [linked.essay_ids.index(essay_id) for essay_id in graph.essay_ids]
    return replace(
        graph,
        scores=linked.scores[own],
        covariance=linked.covariance[own][:, own],
        information=None,
        known_ids=frozenset(_old_names(db, record, _text_hashes(db, record.batch_id))),
    )


def _before_first_verdict(
    db: Session, record: BatchRecord, graph: ComparisonGraph
) -> ComparisonGraph:
    """Return the graph before a batch has a scale of its own, its known essays where they lie."""
    from cj_pipeline.pairing.warm_start import with_newcomers

    try:
        old = fit_scale(db, load_batch(db, record.settings.link_to[-1]))
    except UnknownBatchError:
        old = None
    if old is None:
        return graph
    old_name = _old_names(db, record, _text_hashes(db, record.batch_id))
    return with_newcomers(graph, old, old_name) if old_name else graph


def _old_names(db: Session, record: BatchRecord, text_hashes: Mapping[str, str]) -> dict[str, str]:
    """Return what the last of the earlier batches calls each essay that both have."""
    theirs = _text_hashes(db, record.settings.link_to[-1])
    named = {text_hash: essay_id for essay_id, text_hash in theirs.items()}
    return {
        essay_id: named[text_hash]
        for essay_id, text_hash in text_hashes.items()
        if text_hash in named
    }


def _text_hashes(db: Session, batch_id: str) -> dict[str, str]:
    rows = db.rows(
        "SELECT essay_id, sha256(text) AS text_hash FROM essays WHERE batch_id = ?"
        " ORDER BY position",
        [batch_id],
    )
    return {row["essay_id"]: row["text_hash"] for row in rows}

"""The final scale becomes grades: rows of `grade_projections`, one revision per grading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.checks.batch_checks import Checked, refuse_unsound_grades, what_stops_grades
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.grading.rows import grading_rows, link_rows
from cj_pipeline.grading.rules import (
    GradingTerms,
    grade_by,
    grades_or_why_not,
    students_alike,
    waived_statement,
)
from cj_pipeline.queries.batch_record import BatchRecord, judged_pairs, load_batch
from cj_pipeline.queries.disagreement import expected_disagreement
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.judges.answering_models import other_models_in_linked
from cj_pipeline.queries.linked_scale import read_linked_scale
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.decide import decide_again
from cj_pipeline.steps.describe_scale import forget_description
from cj_pipeline.steps.fit import fit
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.grading.disagreement import Disagreement, ExpectedDisagreement
    from cj_pipeline.grading.linked_scale import LinkedScale
    from cj_pipeline.grading.projection import GradeProjections
    from cj_pipeline.scale.bradley_terry import Scale


@dataclass(frozen=True)
class Projected:
    """Whether a batch was graded, and the plain words for why or why not.

    `chain` has the batch amid those whose scale it is on; None where it is on its own. `expected`
    is what was taken of the disagreement between judge and graders beforehand.
    """

    revision: int
    is_graded: bool
    statement: str
    projections: GradeProjections | None
    chain: LinkedScale | None = None
    expected: ExpectedDisagreement | None = None


def project(runtime: Runtime, batch_id: str, *, again: bool = False) -> Projected:
    """Turn a batch's final scores into grades, or say why that cannot be done.

    Where a check fails that no grade may leave without, there are none, and the statement says
    which; scores, report and artefact leave all the same, for people to decide by. What the scale
    is worth is worked out after this, by `describe_scale`.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        again: Add a revision to what was graded before; nothing is judged or paid anew. Verdicts
            that came after the batch's end ask for one by themselves.

    Raises:
        FailedCheckError: If the grades themselves are not sound; nothing of them is kept.
    """
    again = _score_late_verdicts(runtime, batch_id) or again
    with runtime.store.read() as db:
        record = load_batch(db, batch_id)
        row = db.one(
            "SELECT coalesce(max(revision), 0) AS revision FROM grading_reports WHERE batch_id = ?",
            [batch_id],
        )
        revision = int(row["revision"]) if row else 0
        judged = judged_pairs(db, batch_id)
        scale = fit_scale(db, record) if judged else None
        chain, not_linked = _chain(db, record, scale)
        others = None if chain is None else other_models_in_linked(db, record)
        expected = expected_disagreement(db, record)
        history = read_history(db, batch_id)
        stopped_by = what_stops_grades(db, history, runtime.clock())
    if stopped_by and record.state == "succeeded":
        statement, projections = _stopped(stopped_by), None
    else:
        statement, projections = _grades(record, scale, judged, chain, expected)
        if record.state == "succeeded":
            statement = students_alike(scale, record.anchor_grades) + statement
    waived = waived_statement(record.metadata.get("graded_despite", ()))
    projected = Projected(
        revision=revision + 1 if again or revision == 0 else revision,
        is_graded=projections is not None and projections.is_graded,
        statement=" ".join(filter(None, (statement, not_linked, others, waived))),
        projections=projections,
        chain=chain,
        expected=expected,
    )
    if again or revision == 0:
        _keep(runtime, record, projected, history)
    return projected


def _score_late_verdicts(runtime: Runtime, batch_id: str) -> bool:
    """Score and decide anew where verdicts came after a batch's last grading; whether they did."""
    with runtime.store.read() as db:
        row = db.one(
            "SELECT late_rows_at, state <> 'running' AS has_ended,"
            " (SELECT max(projected_at) FROM grading_reports g WHERE g.batch_id = b.batch_id)"
            " AS projected_at FROM batches b WHERE batch_id = ?",
            [batch_id],
        )
    if row is None or row["late_rows_at"] is None or not row["has_ended"]:
        return False
    if row["projected_at"] is not None and row["projected_at"] >= row["late_rows_at"]:
        return False
    fit(runtime, batch_id)
    decide_again(runtime, batch_id)
    return True


def _chain(
    db: Session, record: BatchRecord, scale: Scale | None
) -> tuple[LinkedScale | None, str | None]:
    """Return the batch amid those it is to be linked to; else None, and why where it was asked."""
    earlier = record.settings.link_to
    if not earlier or record.state != "succeeded":
        return None, None
    try:
        return read_linked_scale(db, record, earlier, scale), None
    except UnscalableBatchError as error:
        return None, f"On its own scale, not on an earlier one: {error}"


def _grades(
    record: BatchRecord,
    scale: Scale | None,
    judged: Sequence[JudgedPair],
    chain: LinkedScale | None,
    expected: ExpectedDisagreement | None,
) -> tuple[str, GradeProjections | None]:
    beforehand = None if expected is None else expected.if_learnt
    if chain is not None and record.state == "succeeded" and record.grading_terms is not None:
        return _grades_in_chain(record, chain, record.grading_terms, beforehand)
    return grades_or_why_not(
        record.grading_terms if record.state == "succeeded" else str(record.end_reason),
        scale,
        record.anchor_grades,
        judged,
        record.sampled_grades,
        expected=beforehand,
    )


def _grades_in_chain(
    record: BatchRecord,
    chain: LinkedScale,
    terms: GradingTerms,
    beforehand: Disagreement | None,
) -> tuple[str, GradeProjections]:
    """Return grades by the anchors of all linked batches, for this batch's essays."""
    from cj_pipeline.grading.linked_scale import only

    projections = grade_by(
        terms,
        chain,
        chain.anchor_grades,
        chain.judged,
        record.sampled_grades,
        expected=beforehand,
    )
    statement = f"{projections.statement} {chain.statement}"
    return statement, only(projections, record.essay_ids)


def _stopped(stopped_by: Sequence[Checked]) -> str:
    failed = "; ".join(f"{each.name}: {each.finding.statement}" for each in stopped_by)
    return f"No grades: what they may not leave without does not hold. {failed}."


def _disagreement(projected: Projected) -> dict[str, Any] | None:
    """Return what was taken of the disagreement and what was found; None without a fit."""
    found = projected.projections.disagreement if projected.projections is not None else None
    if found is None or projected.expected is None:
        return None
    return {"expected": projected.expected.as_record(), "found": asdict(found)}


def _keep(
    runtime: Runtime, record: BatchRecord, projected: Projected, history: BatchHistory
) -> None:
    now = runtime.clock()
    key = {"batch_id": record.batch_id, "revision": projected.revision}
    projections, terms = projected.projections, record.grading_terms
    report = {
        **key,
        "scale": record.settings.scale,
        "is_graded": projected.is_graded,
        "statement": projected.statement,
        "anchor_check": asdict(projections.anchor_check) if projections else {},
        "anchor_grades": record.anchor_grades,
        "sampled_grades": record.sampled_grades or None,
        "scale_definition": asdict(terms.scale) if terms else None,
        "terms": terms.as_record() if terms else None,
        "disagreement": _disagreement(projected),
        "projected_at": now,
    }
    is_graded = projections is not None and projections.is_graded
    tables = (
        grading_rows(projections, key, now, record.anchor_grades)
        if projections and is_graded
        else {}
    )
    graded = replace(
        history,
        grading=report,
        projections=tuple(tables.get("grade_projections", ())),
        boundaries=tuple(tables.get("grade_boundaries", ())),
    )
    refuse_unsound_grades(graded)
    with runtime.store.write() as db:
        db.insert("grading_reports", [report], on_conflict="ignore")
        forget_description(db, record.batch_id)
        if projected.chain is not None:
            for table, rows in link_rows(projected.chain, record.essay_ids, key, now).items():
                db.insert(table, rows, on_conflict="ignore")
        for table, rows in tables.items():
            db.insert(table, rows, on_conflict="ignore")

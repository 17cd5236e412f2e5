"""The final scale becomes grades: rows of `grade_projections`, one revision per grading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cj_pipeline.comparisons import JudgedPair
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.fit import fit_scale
from cj_pipeline.steps.records import BatchRecord, judged_pairs, load_batch

if TYPE_CHECKING:
    from cj_pipeline.bradley_terry import Scale
    from cj_pipeline.projection import GradeProjections


@dataclass(frozen=True)
class Projected:
    """Whether a batch was graded, and the plain words for why or why not."""

    revision: int
    is_graded: bool
    statement: str
    projections: GradeProjections | None


def project(engine: Engine, batch_id: str, *, again: bool = False) -> Projected:
    """Turn a batch's final scores into grades, or say why that cannot be done.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        again: Add a revision to what was graded before; nothing is judged or paid anew.
    """
    with engine.store.read() as db:
        record = load_batch(db, batch_id)
        row = db.one(
            "SELECT coalesce(max(revision), 0) AS revision FROM grading_reports WHERE batch_id = ?",
            [batch_id],
        )
        revision = int(row["revision"]) if row else 0
        judged = judged_pairs(db, batch_id)
        scale = fit_scale(db, record) if judged else None
    statement, projections = _grades(record, scale, judged)
    projected = Projected(
        revision=revision + 1 if again or revision == 0 else revision,
        is_graded=projections is not None and projections.is_graded,
        statement=statement,
        projections=projections,
    )
    if again or revision == 0:
        _keep(engine, record, projected)
    return projected


def _grades(
    record: BatchRecord, scale: Scale | None, judged: Sequence[JudgedPair]
) -> tuple[str, GradeProjections | None]:
    name = record.settings.scale
    if record.state != "succeeded":
        return f"No grades: the batch ended as {record.end_reason}.", None
    if scale is None:
        return "No grades: the verdicts do not join all essays into one net.", None
    if name is None:
        return "Scores and ranks only: the batch names no grade scale.", None
    if not record.anchor_grades:
        return f"Scores and ranks only: no anchors carry grades on {name}.", None
    from cj_pipeline.projection import project_grades
    from cj_pipeline.scales import load_scale

    projections = project_grades(
        load_scale(name),
        scale.essay_ids,
        scale.scores,
        scale.covariance,
        record.anchor_grades,
        judged=judged,
    )
    return projections.statement, projections


def _keep(engine: Engine, record: BatchRecord, projected: Projected) -> None:
    now = engine.clock()
    key = {"batch_id": record.batch_id, "revision": projected.revision}
    projections = projected.projections
    report = {
        **key,
        "scale": record.settings.scale,
        "is_graded": projected.is_graded,
        "statement": projected.statement,
        "anchor_check": asdict(projections.anchor_check) if projections else {},
        "anchor_grades": record.anchor_grades,
        "projected_at": now,
    }
    with engine.store.write() as db:
        db.insert("grading_reports", [report], on_conflict="ignore")
        if projections is None or not projections.is_graded:
            return
        db.insert(
            "grade_projections",
            [
                {
                    **key,
                    "essay_id": essay_id,
                    "scale": projections.scale.name,
                    "grade": projections.most_probable[i],
                    "expected_grade": float(projections.expected_grade[i]),
                    "confidence": float(projections.confidence[i]),
                    "probabilities": {
                        grade: float(p)
                        for grade, p in zip(
                            projections.grades, projections.probabilities[i], strict=True
                        )
                    },
                    "primary_anchor_id": projections.primary_anchor_ids[i],
                    "is_extrapolated": bool(projections.extrapolated[i]),
                    "is_anchor": essay_id in record.anchor_grades,
                    "projected_at": now,
                }
                for i, essay_id in enumerate(projections.essay_ids)
            ],
            on_conflict="ignore",
        )
        db.insert(
            "grade_boundaries",
            [
                {
                    **key,
                    "scale": projections.scale.name,
                    "position": position,
                    "below": boundary.below,
                    "above": boundary.above,
                    "boundary": float(boundary.position),
                    "standard_error": float(boundary.standard_error),
                }
                for position, boundary in enumerate(projections.boundaries, start=1)
            ],
            on_conflict="ignore",
        )

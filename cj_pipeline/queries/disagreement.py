"""What a store's earlier gradings tell of how judge and graders disagree, read for the next one.

Fixed with a batch's first grading: grading it again by the same judges, rubric and scale takes what
that one took, so only what a person changed is other than before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cj_pipeline.grading.disagreement import (
    EarlierGrading,
    ExpectedDisagreement,
    Told,
    judged_by,
    learn,
    usual_disagreement,
)
from cj_pipeline.store.session import Session

if TYPE_CHECKING:
    from cj_pipeline.queries.batch_record import BatchRecord

MOST_GRADINGS = 50
"""Earlier gradings that are looked at, the latest first: by then little is left to learn."""


def expected_disagreement(db: Session, record: BatchRecord) -> ExpectedDisagreement | None:
    """Return what a batch's grading is to take beforehand; None where it names no scale."""
    if record.grading_terms is None:
        return None
    steps = record.grading_terms.scale.steps
    key, usual = _key(db, record.batch_id, steps), usual_disagreement(len(steps))
    before = db.one(
        "SELECT disagreement FROM grading_reports WHERE batch_id = ? AND is_graded"
        " ORDER BY revision DESC LIMIT 1",
        [record.batch_id],
    )
    if before is not None:
        if before["disagreement"] is None:  # an earlier version took the usual
            return ExpectedDisagreement(usual, key)
        taken = ExpectedDisagreement.from_record(before["disagreement"]["expected"])
        if taken.judged_by == key:
            return taken
    earlier = _earlier(db, record, key)
    return ExpectedDisagreement(learn(usual, earlier), key, earlier)


def _key(db: Session, batch_id: str, steps: tuple[str, ...]) -> str:
    judges = db.rows(
        "SELECT DISTINCT CASE WHEN j.provider = 'human' THEN 'people' ELSE c.judge_id END AS judge"
        " FROM comparisons c JOIN judges j USING (batch_id, judge_id)"
        " WHERE c.batch_id = ? AND c.status = 'succeeded'",
        [batch_id],
    )
    rubric = db.one(
        "SELECT sha256 FROM documents WHERE batch_id = ? AND kind = 'rubric'", [batch_id]
    )
    sha256 = None if rubric is None else str(rubric["sha256"])
    return judged_by([row["judge"] for row in judges], sha256, steps)


def _earlier(db: Session, record: BatchRecord, key: str) -> tuple[EarlierGrading, ...]:
    """Return what other batches told, the latest first, each anchor counted once."""
    rows = db.rows(
        "SELECT batch_id, revision, disagreement->'found' AS found FROM grading_reports g"
        " WHERE batch_id <> $batch AND (disagreement->'expected'->>'judged_by') = $key"
        " AND revision = (SELECT max(revision) FROM grading_reports l"
        " WHERE l.batch_id = g.batch_id)"
        " ORDER BY projected_at DESC, batch_id LIMIT $most",
        {"batch": record.batch_id, "key": key, "most": MOST_GRADINGS},
    )
    counted = _anchor_texts(db, record.batch_id, record.settings.link_to)
    found = []
    for row in rows:
        texts = _anchor_texts(db, row["batch_id"], ())
        new = texts - counted
        counted |= texts
        sample = row["found"]["sample"]
        grading = EarlierGrading(
            batch_id=row["batch_id"],
            revision=row["revision"],
            share=len(new) / len(texts) if texts else 0.0,
            exemplars=Told(**row["found"]["exemplars"]),
            sample=Told(**sample) if sample is not None else None,
        )
        if grading.parts:
            found.append(grading)
    return tuple(found)


def _anchor_texts(db: Session, batch_id: str, link_to: tuple[str, ...]) -> set[str]:
    """Return checksums of the anchors a batch is graded by, those of linked batches too."""
    rows = db.rows(
        "SELECT DISTINCT sha256(text) AS text FROM essays WHERE is_anchor AND text IS NOT NULL"
        " AND (batch_id = $batch OR batch_id IN (SELECT unnest($linked)) OR batch_id IN"
        " (SELECT unnest([onto_batch_id, placed_batch_id]) FROM batch_links"
        " WHERE batch_id = $batch))",
        {"batch": batch_id, "linked": list(link_to)},
    )
    return {row["text"] for row in rows}

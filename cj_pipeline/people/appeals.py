"""An appeal: people who had no part in an essay's grade judge it anew, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from cj_pipeline.errors import SettingsError, UnknownEssayError
from cj_pipeline.ids import nearest
from cj_pipeline.people.moderation import MAX_REASON, send_to_people
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.essay_names import essay_labels, essay_named
from cj_pipeline.queries.release import release_of
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()


@dataclass(frozen=True)
class Appeal:
    """One appeal, and how far it is.

    Attributes:
        number: Counts from 1 through the batch.
        essay_id: The essay.
        reason: Why another look was asked for.
        requested_by: By whom.
        grade_before: The machine's grade that was appealed.
        grade_now: The one of the last grading; the same while people have not judged.
        n_pairs: New pairs given to people.
        n_judged: Of these, judged.
    """

    number: int
    essay_id: str
    reason: str
    requested_by: str
    grade_before: str | None
    grade_now: str | None
    n_pairs: int
    n_judged: int

    @property
    def outcome(self) -> str:
        """What came of it, in words."""
        if self.n_judged < self.n_pairs:
            return f"open: {self.n_judged} of {self.n_pairs} new pairs are judged"
        if self.grade_before == self.grade_now:
            return f"upheld: {self.grade_now} after {self.n_pairs} new verdicts"
        return (
            f"changed from {self.grade_before} to {self.grade_now} by {self.n_pairs} new verdicts"
        )


def rejudge(runtime: Runtime, batch_id: str, essay_id: str, *, by: str, reason: str) -> Appeal:
    """Have people judge an essay anew; its grade follows as a further grading, not released yet.

    The pairs go to people who judged nothing of this essay before.

    Raises:
        UnknownEssayError: If the batch has no such student.
        SettingsError: If the batch has no grades, no reason is given, or people have an appeal of
            this essay before them.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        essay_id = essay_named(db, batch_id, essay_id)
        if essay_id not in record.student_ids:
            called = essay_labels(db, batch_id)
            hint = nearest(essay_id, [*record.student_ids, *called.values()])
            msg = f"Batch '{batch_id}' has no student's essay '{essay_id}'{hint}"
            raise UnknownEssayError(msg)
        revision = release_of(db, batch_id).revision
        if revision is None or not reason.strip() or not by.strip():
            msg = (
                f"'{essay_id}' was not sent to people: say why (--reason) and who asks (--by)."
                if revision is not None
                else f"Batch '{batch_id}' has no grades yet: wait for its end."
            )
            raise SettingsError(msg)
        grade = _grade(db, batch_id, essay_id, revision)
        n_pairs = send_to_people(db, record, essay_id, reason="an appeal", now=now, part="appeal")
        if not n_pairs:
            msg = f"People have '{essay_id}' before them already: wait for their verdicts."
            raise SettingsError(msg)
        row = db.one(
            "SELECT coalesce(max(number), 0) AS n FROM appeals WHERE batch_id = ?", [batch_id]
        )
        number = int(row["n"]) + 1 if row else 1
        db.insert(
            "appeals",
            [
                {
                    "batch_id": batch_id,
                    "number": number,
                    "essay_id": essay_id,
                    "reason": reason.strip()[:MAX_REASON],
                    "requested_by": by.strip(),
                    "requested_at": now,
                    "revision": revision,
                    "machine_grade": grade,
                    "n_pairs": n_pairs,
                }
            ],
        )
        found = appeals(db, batch_id)[-1]
    log.info("essay_appealed", batch_id=batch_id, essay_id=essay_id, n_pairs=n_pairs)
    return found


def appeals(db: Session, batch_id: str) -> list[Appeal]:
    """Return a batch's appeals, oldest first, each with what came of it so far."""
    rows: list[dict[str, Any]] = db.rows(
        """
        SELECT a.number, a.essay_id, a.reason, a.requested_by, a.machine_grade AS grade_before,
               (SELECT g.grade FROM grade_projections g WHERE g.batch_id = a.batch_id
                AND g.essay_id = a.essay_id AND g.revision = r.revision) AS grade_now,
               a.n_pairs,
               (SELECT count(*) FROM v_judging_tasks t WHERE t.batch_id = a.batch_id
                AND t.part = 'appeal' AND t.planned_at = a.requested_at AND t.n_verdicts > 0
                AND a.essay_id IN (t.essay_a, t.essay_b)) AS n_judged
        FROM appeals a JOIN v_release r USING (batch_id)
        WHERE a.batch_id = ? ORDER BY a.number
        """,
        [batch_id],
    )
    return [Appeal(**row) for row in rows]


def _grade(db: Session, batch_id: str, essay_id: str, revision: int) -> str | None:
    row = db.one(
        "SELECT grade FROM grade_projections WHERE batch_id = ? AND essay_id = ? AND revision = ?",
        [batch_id, essay_id, revision],
    )
    return str(row["grade"]) if row else None

"""Whether the same inputs were bought before, under another name."""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.store import Session


@dataclass(frozen=True)
class JudgedBefore:
    """A batch of the same files, settings included, that was taken in under another name."""

    batch_id: str
    state: str
    cost_usd: float

    def told(self) -> str:
        """Return what a person has to know before paying again."""
        return (
            f"the very same files are the batch '{self.batch_id}' ({self.state},"
            f" {self.cost_usd:.4f} USD): give --again to have them judged and paid once more"
        )


def judged_before(db: Session, batch_id: str, content_sha256: str) -> JudgedBefore | None:
    """Return the latest other batch of the same content; runs of a trial do not count."""
    row = db.one(
        """
        SELECT b.batch_id, b.state, coalesce(sum(j.billed_usd), 0) AS cost_usd
        FROM batches b LEFT JOIN provider_jobs j USING (batch_id)
        WHERE b.content_sha256 = $content AND b.batch_id <> $batch AND b.state <> 'rejected'
          AND NOT EXISTS (FROM trial_runs t WHERE t.batch_id = b.batch_id)
        GROUP BY b.batch_id, b.state, b.created_at ORDER BY b.created_at DESC LIMIT 1
        """,
        {"content": content_sha256, "batch": batch_id},
    )
    return JudgedBefore(**row) if row else None

"""Who answered a batch's requests, read from its attempts."""

from __future__ import annotations

from cj_pipeline.diagnostics.answering_models import Answered, models_that_differ, who_answered
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session


def read_who_answered(db: Session, batch_id: str) -> list[Answered]:
    """Return who answered each judge's requests in a batch."""
    attempts = db.rows(
        "SELECT a.judge_id, a.custom_id, a.requested_at, a.answered_model, a.answered_fingerprint,"
        " a.service_tier, p.batching_mode = 'provider_batch_api' AS is_batched"
        " FROM attempts a JOIN provider_jobs p USING (submission_key)"
        " WHERE a.batch_id = ? AND a.answered_model IS NOT NULL",
        [batch_id],
    )
    judges = db.rows("SELECT judge_id, definition FROM judges WHERE batch_id = ?", [batch_id])
    return who_answered(attempts, judges)


def other_models_in_linked(db: Session, record: BatchRecord) -> str | None:
    """Return in words which judges other models answered for in the batches linked to."""
    after = read_who_answered(db, record.batch_id) if record.settings.link_to else []
    found = [
        words
        for earlier in record.settings.link_to
        for words in models_that_differ(
            read_who_answered(db, earlier), after, f"the linked batch '{earlier}'"
        )
    ]
    return None if not found else f"Not the same model answered: {'; '.join(found)}."

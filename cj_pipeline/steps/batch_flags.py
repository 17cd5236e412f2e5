"""The four flags of a batch that later steps act on, and their one writer.

A flag is set once and never taken back, but for the spend cap's. Readers find it as a field of
`BatchRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from cj_pipeline.store.session import Session


class BatchFlag(StrEnum):
    """A flag's name; its column in `batches` bears the same."""

    CANCEL_REQUESTED = "cancel_requested"
    SPEND_CAP_REACHED = "spend_cap_reached"
    CANARY_FAILED = "canary_failed"
    NOTHING_LEFT_TO_ASK = "nothing_left_to_ask"


_SET: Mapping[BatchFlag, str] = {
    BatchFlag.CANCEL_REQUESTED: "UPDATE batches SET cancel_requested = TRUE, updated_at = $now"
    " WHERE batch_id = $batch",
    BatchFlag.SPEND_CAP_REACHED: "UPDATE batches SET spend_cap_reached = TRUE, updated_at = $now"
    " WHERE batch_id = $batch",
    BatchFlag.CANARY_FAILED: "UPDATE batches SET canary_failed = TRUE, updated_at = $now"
    " WHERE batch_id = $batch",
    BatchFlag.NOTHING_LEFT_TO_ASK: "UPDATE batches SET nothing_left_to_ask = TRUE,"
    " updated_at = $now WHERE batch_id = $batch",
}


def set_flag(db: Session, batch_id: str, flag: BatchFlag, now: datetime) -> None:
    """Set one of a batch's flags; a flag that is set already stays so."""
    db.execute(_SET[flag], {"now": now, "batch": batch_id})


def spend_cap_raised(db: Session, batch_id: str, now: datetime) -> None:
    """Take back that a batch's spend cap was reached: it is higher now, and asked anew."""
    db.execute(
        "UPDATE batches SET spend_cap_reached = FALSE, updated_at = ? WHERE batch_id = ?",
        [now, batch_id],
    )

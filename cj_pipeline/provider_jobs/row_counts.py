"""How many missing rows of an ended job its provider may have been paid for; pure.

The provider's own counts decide: a row that it counts as failed, or that an expired or cancelled
job never reached, may be requested again; a row that it counts as done, or does not count at all,
is paid for as far as anybody knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.providers.base import JobOutcome


@dataclass(frozen=True)
class CameHome:
    """What came of a job's requests so far.

    Attributes:
        n_answered: Requests with a row that the provider was paid for.
        n_failed: Requests with a row that says how they failed.
        n_open: Requests without a row.
        n_unmatched: Lines that came and belong to no request: unreadable, foreign, or without id.
    """

    n_answered: int
    n_failed: int
    n_open: int
    n_unmatched: int = 0

    @property
    def n_requests(self) -> int:
        """All of the job's requests."""
        return self.n_answered + self.n_failed + self.n_open


def rows_owed(
    came: CameHome, outcome: JobOutcome | None, n_completed: int | None, n_failed: int | None
) -> int:
    """Return how many of a job's missing rows may have been paid for; 0 where surely none.

    Args:
        came: What came.
        outcome: How the job ended.
        n_completed: Requests done, by the provider's count; None where it tells none.
        n_failed: Requests failed, likewise.
    """
    n_lost = came.n_open
    # Lines came and none is ours: whatever was counted, these may be the answers.
    is_foreign = came.n_unmatched > 0 and came.n_open == came.n_requests
    counts_something_else = (n_completed or 0) + (n_failed or 0) > came.n_requests
    if not n_lost or is_foreign or counts_something_else:
        return n_lost
    if outcome is JobOutcome.COMPLETED:
        # All of it was worked off: only what counts as failed was not paid for.
        return n_lost - min(n_lost, max(0, (n_failed or 0) - came.n_failed))
    if outcome is JobOutcome.FAILED and n_completed is None and not came.n_answered:
        return 0  # its input was refused as a whole
    if n_completed is None or n_completed < came.n_answered:
        return n_lost
    return min(n_lost, max(0, n_completed - came.n_answered))

"""A job's phase at a moment: a pure function of its plan and the clock.

Nothing runs between two polls. What will become of a job is drawn when it is created, and every
call for it computes how far it would be by now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Fate = Literal["completes", "fails", "fails_half_way", "expires", "is_cancelled", "stuck"]
Phase = Literal[
    "validating",
    "running",
    "finalizing",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
]
ENDED: frozenset[Phase] = frozenset({"completed", "failed", "expired", "cancelled"})
_VALIDATED, _FINALIZING = 0.05, 0.95
"""The shares of a job's time after which it is validated, and after which only files are left."""


_EARLY_ENDS: Mapping[Fate, Phase] = {
    "fails_half_way": "failed",
    "expires": "expired",
    "is_cancelled": "cancelled",
}


@dataclass(frozen=True)
class JobPlan:
    """What will become of a job, drawn when it is created.

    Attributes:
        duration_s: From creation to its end.
        fate: How it ends.
        done_share: The rows done when it ends, or gets stuck, before all are.
        window_s: When it expires if it is not done by then.
        cancel_latency_s: How long it is seen cancelling.
        listed_after_s: How long it is missing from lists.
        status_word: Shown instead of the status while it runs; empty for none.
        late_files_s: How long after its end it has no result files' ids.
        empty_file_ids: Whether a file that does not exist has the id "" rather than none.
        counts_word: "none" or "zero" where it does not tell how many requests are done.
        errors: Why its input was refused: (code, message, line or None).
    """

    duration_s: float = 0.0
    fate: Fate = "completes"
    done_share: float = 1.0
    window_s: float = 86_400.0
    cancel_latency_s: float = 0.0
    listed_after_s: float = 0.0
    status_word: str = ""
    late_files_s: float = 0.0
    empty_file_ids: bool = False
    counts_word: str = ""
    errors: tuple[tuple[str, str, int | None], ...] = ()


@dataclass(frozen=True)
class JobPhase:
    """How far a job is: rows whose finish is below `done` are done."""

    phase: Phase
    done: float
    ended_at: float | None = None

    @property
    def is_unread(self) -> bool:
        """Whether none of its requests was looked at: not yet, or its input was refused."""
        return self.phase == "validating" or (self.phase == "failed" and self.done == 0)


def phase_at(
    plan: JobPlan, created_at: float, cancel_at: float | None, done_at_cancel: float, now: float
) -> JobPhase:
    """Return a job's phase at a time.

    Args:
        plan: Its plan.
        created_at: When it was created, in seconds.
        cancel_at: When its cancellation was requested; None if it was not.
        done_at_cancel: The rows done by then.
        now: The time in question, not before `created_at`.
    """
    if cancel_at is not None:
        end = cancel_at + plan.cancel_latency_s
        if now < end:
            return JobPhase("cancelling", done_at_cancel)
        return JobPhase("cancelled", done_at_cancel, end)
    end_s, phase, done = _end(plan)
    # The same sum as in `due_at`, so that rounding cannot make the two differ.
    if end_s is not None and now >= created_at + end_s:
        return JobPhase(phase, done, created_at + end_s)
    passed = (now - created_at) / plan.duration_s if plan.duration_s else 1.0
    if passed < _VALIDATED:
        return JobPhase("validating", 0.0)
    if plan.fate == "completes" and passed >= _FINALIZING:
        return JobPhase("finalizing", 1.0)
    return JobPhase("running", min(plan.done_share, _rows_done(passed)))


def due_at(plan: JobPlan, created_at: float, cancel_at: float | None) -> float | None:
    """Return when a job ends; None if it never does."""
    if cancel_at is not None:
        return cancel_at + plan.cancel_latency_s
    end_s, _, _ = _end(plan)
    return None if end_s is None else created_at + end_s


def _end(plan: JobPlan) -> tuple[float | None, Phase, float]:
    """Return the seconds until a job ends by itself, how, and the rows done by then."""
    match plan.fate:
        case "stuck":
            return None, "running", plan.done_share
        case "fails":
            return _VALIDATED * plan.duration_s, "failed", 0.0
        case "fails_half_way" | "expires" | "is_cancelled":
            return plan.duration_s, _EARLY_ENDS[plan.fate], plan.done_share
        case "completes":
            if plan.duration_s > plan.window_s:
                return plan.window_s, "expired", _rows_done(plan.window_s / plan.duration_s)
            return plan.duration_s, "completed", 1.0


def _rows_done(passed: float) -> float:
    return max(0.0, min(1.0, (passed - _VALIDATED) / (_FINALIZING - _VALIDATED)))

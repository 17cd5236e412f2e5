"""What is retried, how often and when: by the cause of the failure, through tenacity.

The waits grow exponentially and are drawn at random up to that bound, so that calls that failed
together do not come back together; what a provider states in Retry-After is the least.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from cj_pipeline.errors import CJError, TransientError, UncertainOutcomeError


class Cause(StrEnum):
    """Why an attempt failed."""

    BUSY = "busy"  # 429: the provider is well but busy
    DOWN = "down"  # 5xx, or no connection: nothing was carried out
    LOST = "lost"  # sent and not answered: it may have been paid for


MAX_ATTEMPTS: Mapping[Cause, int] = {Cause.BUSY: 12, Cause.DOWN: 6, Cause.LOST: 3}
"""A lost reply may cost twice, so it is retried fewer times than what costs nothing."""

CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True)
class RetryRules:
    """How retries are spaced, in seconds, and how many attempts each cause gets in all."""

    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    max_attempts: Mapping[Cause, int] = field(default_factory=lambda: dict(MAX_ATTEMPTS))


def cause_of(error: CJError) -> Cause:
    """Return why an attempt failed that may be retried."""
    status = getattr(error, "status", None)
    if status == 429:
        return Cause.BUSY
    if isinstance(error, UncertainOutcomeError) and (status is None or status < 500):
        return Cause.LOST
    return Cause.DOWN


def is_client_error(error: BaseException) -> bool:
    """Whether a failure says nothing about its provider's health."""
    return getattr(error, "status", None) in CLIENT_ERRORS


def retry_after_s(error: CJError) -> float:
    """Return the wait the provider stated in Retry-After; 0 where it stated none."""
    return getattr(error, "retry_after_s", None) or 0.0


def retrying(
    rules: RetryRules,
    time_left_s: Callable[[], float | None],
    sleep: Callable[[float], Awaitable[None]],
    attempts: dict[Cause, int],
    *,
    patience_s: float = math.inf,
) -> AsyncRetrying:
    """Return what retries a call until it is answered, refused, or out of attempts.

    Args:
        rules: How often, and how far apart.
        time_left_s: Seconds from now after which no attempt may begin; None is no bound.
        sleep: Waits; may raise to end it all.
        attempts: Counts the failures by cause, for the caller to see why it was abandoned.
        patience_s: A provider that asks for a longer wait than this is not waited for here.
    """
    spread = wait_random_exponential(multiplier=rules.first_wait_s, max=rules.longest_wait_s)

    def wait(state: RetryCallState) -> float:
        return max(spread(state), retry_after_s(_failure(state)))

    def stop(state: RetryCallState) -> bool:
        error = _failure(state)
        cause = cause_of(error)
        attempts[cause] = attempts.get(cause, 0) + 1
        left = time_left_s()
        is_late = left is not None and state.upcoming_sleep > left
        is_put_off = retry_after_s(error) > patience_s
        return attempts[cause] >= rules.max_attempts[cause] or is_late or is_put_off

    return AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait,
        stop=stop,
        sleep=sleep,
        reraise=True,
    )


def _failure(state: RetryCallState) -> CJError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, CJError)  # noqa: S101 -- nothing else is retried
    return error

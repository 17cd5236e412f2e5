"""What is tried again, how often and when: by the cause of the failure, through tenacity.

The waits grow exponentially and are drawn at random up to that bound, so that calls that failed
together do not come back together; what a provider asks for by Retry-After is the least.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from cj_pipeline.errors import CJError, TransientError, UncertainOutcomeError


class Cause(StrEnum):
    """Why a try failed."""

    BUSY = "busy"  # 429: the provider is well and asks for patience
    DOWN = "down"  # 5xx, or no connection: nothing was carried out
    LOST = "lost"  # sent and not answered: it may have been paid for


MOST_TRIES: Mapping[Cause, int] = {Cause.BUSY: 12, Cause.DOWN: 6, Cause.LOST: 3}
"""A lost reply may cost twice, so it is asked for again more rarely than what costs nothing."""

CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True)
class RetryRules:
    """How retries are spaced, in seconds, and how often each cause is tried in all."""

    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    most_tries: Mapping[Cause, int] = field(default_factory=lambda: dict(MOST_TRIES))


def cause_of(error: CJError) -> Cause:
    """Return why a try failed that may be tried again."""
    status = getattr(error, "status", None)
    if status == 429:
        return Cause.BUSY
    if isinstance(error, UncertainOutcomeError) and (status is None or status < 500):
        return Cause.LOST
    return Cause.DOWN


def is_client_error(error: BaseException) -> bool:
    """Whether a failure says nothing about its provider's health."""
    return getattr(error, "status", None) in CLIENT_ERRORS


def asked_wait_s(error: CJError) -> float:
    """Return how long the provider asked to be left alone; 0 where it did not."""
    return getattr(error, "retry_after_s", None) or 0.0


def retrying(
    rules: RetryRules,
    last_begin: Callable[[], float | None],
    sleep: Callable[[float], Awaitable[None]],
    tries: dict[Cause, int],
) -> AsyncRetrying:
    """Return what tries a call until it is answered, refused, or not worth another try.

    Args:
        rules: How often, and how far apart.
        last_begin: Seconds from now after which no try may begin; None is no bound.
        sleep: Waits; may raise to end it all.
        tries: Counts the failures by cause, for whoever wants to know why it was given up.
    """
    spread = wait_random_exponential(multiplier=rules.first_wait_s, max=rules.longest_wait_s)

    def wait(state: RetryCallState) -> float:
        return max(spread(state), asked_wait_s(_failure(state)))

    def stop(state: RetryCallState) -> bool:
        error = _failure(state)
        cause = cause_of(error)
        tries[cause] = tries.get(cause, 0) + 1
        left = last_begin()
        is_late = left is not None and state.upcoming_sleep > left
        return tries[cause] >= rules.most_tries[cause] or is_late

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

"""When a batch goes on, and how it ends: one pure function of one frozen value.

`steps.decide` gathers the facts from the store and keeps the decision; nothing else decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from cj_pipeline.batch.comparisons import max_possible_pairs


class BatchOutcome(StrEnum):
    """How a batch came out; each has exactly one.

    Attributes:
        SUCCESS: It has its scores, and every comparison has a verdict.
        PARTIAL: It has its scores, and some comparisons failed for good.
        FAILURE: It has no scores to go by; its end reason says why.
        EMPTY: It ended before anything was requested.
        CANCELLED: A person ended it.
        EXPIRED: Its comparisons ran out of their provider's time.
        STALLED: Nothing came for longer than it allows.
    """

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILURE = "failure"
    EMPTY = "empty"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    STALLED = "stalled"

    @property
    def has_scores(self) -> bool:
        """Whether the batch is scored, so that grades and a ranking may be looked for."""
        return self in {BatchOutcome.SUCCESS, BatchOutcome.PARTIAL}


def outcome_of(
    state: str, end_reason: str | None, *, n_asked: int, n_failed: int
) -> BatchOutcome | None:
    """Return how a batch came out; None while it runs, and for one that was never taken in."""
    match state:
        case "succeeded":
            return BatchOutcome.PARTIAL if n_failed else BatchOutcome.SUCCESS
        case "cancelled":
            return BatchOutcome.CANCELLED
        case "failed":
            if end_reason in {"expired", "stalled"}:
                return BatchOutcome(end_reason)
            return BatchOutcome.FAILURE if n_asked else BatchOutcome.EMPTY
    return None


class ContinuationDecision(StrEnum):
    """What happens to a batch next."""

    WAIT_FOR_CALLBACKS = "wait_for_callbacks"
    REQUEST_MORE_COMPARISONS = "request_more_comparisons"
    RESAMPLE = "resample"
    FINALIZE_SCORING = "finalize_scoring"
    FINALIZE_FAILURE = "finalize_failure"

    @property
    def is_final(self) -> bool:
        """Whether the batch ends with this decision."""
        return self in {self.FINALIZE_SCORING, self.FINALIZE_FAILURE}


class EndReason(StrEnum):
    """Why a batch ended; every batch has exactly one in the end."""

    STABLE = "stable"
    PRECISE = "precise"
    BUDGET_SPENT = "budget_spent"
    PAIRS_EXHAUSTED = "pairs_exhausted"
    SMALL_NET_CAP = "small_net_cap"
    SINGLE_WAVE_COMPLETE = "single_wave_complete"

    NO_SUCCESSES = "no_successes"
    LOW_SUCCESS_RATE = "low_success_rate"
    INSUFFICIENT_ESSAYS = "insufficient_essays"
    UNSCALABLE = "unscalable"
    SPEND_CAP = "spend_cap"
    CANARY_FAILED = "canary_failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    STALLED = "stalled"


FAILURES = frozenset(
    {
        EndReason.NO_SUCCESSES,
        EndReason.LOW_SUCCESS_RATE,
        EndReason.INSUFFICIENT_ESSAYS,
        EndReason.UNSCALABLE,
        EndReason.SPEND_CAP,
        EndReason.CANARY_FAILED,
        EndReason.EXPIRED,
        EndReason.STALLED,
    }
)
"""The reasons that nobody wanted: a batch that ends so has no scores, and people are alerted."""


@dataclass(frozen=True)
class WorkflowRules:
    """The settings a decision depends on; their defaults are those of `BatchSettings`.

    `verdicts_per_pair` is how many judges judge a pair, on average: all of the panel, or
    the sum of their shares.
    """

    total_budget: int
    all_at_once: bool
    min_resampling_net_size: int
    max_resampling_passes_for_small_net: int
    max_resampling_passes_for_regular_net: int
    score_stability_threshold: float | None
    min_comparisons_for_stability_check: int
    min_success_rate: float
    verdicts_per_pair: float = 1


@dataclass(frozen=True)
class BatchProgress:
    """The state of a batch when a decision is needed.

    Attributes:
        n_essays: Students and anchors.
        submitted: Comparisons sent out so far, or waiting for a canary; an attempt repeated is not
            a new comparison.
        completed: Those with a verdict.
        failed: Those that failed for good, after every attempt they were allowed.
        failed_as_expired: Of the failed ones, those whose last attempt expired.
        n_in_flight: Requests whose answer has not been collected.
        n_awaited_of_people: Verdicts people still owe, where the batch waits for them.
        n_covered_pairs: Unique pairs with at least one verdict.
        is_connected: Whether the verdicts connect all essays.
        max_score_change: In logits since the last wave; None before the second scale.
        is_precise: Whether the precision the batch requires is reached; None when it requires none.
        spend_cap_reached: Whether the next wave was refused for its cost.
        canary_failed: Whether a judge gave no verdict in the requests sent ahead.
        nothing_left_to_ask: Whether planning found no pair for another wave.
        is_cancelled: Whether a person ended the batch.
        is_stalled: Whether nothing has moved for too long, at a provider or before one.
        n_in_doubt: Of the failed ones, those that may have been answered and whose row never came.
        next_wave_is_out: Whether the next wave was sent together with this one: it has gone on.
    """

    n_essays: int
    submitted: int
    completed: int
    failed: int
    failed_as_expired: int = 0
    n_in_flight: int = 0
    n_awaited_of_people: int = 0
    n_covered_pairs: int = 0
    is_connected: bool = False
    max_score_change: float | None = None
    is_precise: bool | None = None
    spend_cap_reached: bool = False
    canary_failed: bool = False
    nothing_left_to_ask: bool = False
    is_cancelled: bool = False
    is_stalled: bool = False
    n_in_doubt: int = 0
    next_wave_is_out: bool = False

    @property
    def pending(self) -> int:
        """Comparisons sent out whose callback has not come."""
        return self.submitted - (self.completed + self.failed)

    @property
    def success_rate(self) -> float:
        """The share of the ended comparisons that have a verdict; 0 before any has ended."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else 0.0


@dataclass(frozen=True)
class Decision:
    """What happens next, and why when that is the end."""

    decision: ContinuationDecision
    reason: EndReason | None = None

    @property
    def is_to_wait(self) -> bool:
        """Whether callbacks are pending, so that nothing is decided yet."""
        return self.decision is ContinuationDecision.WAIT_FOR_CALLBACKS


def is_small_net(n_essays: int, rules: WorkflowRules) -> bool:
    """Return whether a batch is small enough that every pair is covered and then resampled."""
    return n_essays <= rules.min_resampling_net_size


def may_end_early(n_essays: int, rules: WorkflowRules, *, wants_precision: bool) -> bool:
    """Return whether verdicts may end a batch before it has everything it may request.

    Where they may not, waves need not wait for each other's verdicts.
    """
    may_be_stable = rules.score_stability_threshold is not None
    return wants_precision or (may_be_stable and not is_small_net(n_essays, rules))


def resampling_passes_allowed(n_essays: int, rules: WorkflowRules) -> int:
    """Return how often a batch of this size may go over its pairs again."""
    if is_small_net(n_essays, rules):
        return rules.max_resampling_passes_for_small_net
    return rules.max_resampling_passes_for_regular_net


def completion_denominator(n_essays: int, rules: WorkflowRules) -> int:
    """Return the number of comparisons at which a batch is at its end.

    The one source of completion maths: the budget, or every pair judged once by every judge whose
    share it falls to and once more per resampling pass, whichever is less.
    """
    passes = 1 + resampling_passes_allowed(n_essays, rules)
    needed = max_possible_pairs(n_essays) * passes * rules.verdicts_per_pair
    return min(rules.total_budget, math.floor(needed + 1e-9))


def decide_continuation(  # noqa: PLR0911 -- one line per rule, in the order they apply
    progress: BatchProgress, rules: WorkflowRules
) -> Decision:
    """Return what happens to a batch next.

    Nothing is decided while callbacks are pending, unless a watchdog ends the batch. A batch that a
    person ends does not wait for what failed and might be retried.
    """
    wait = Decision(ContinuationDecision.WAIT_FOR_CALLBACKS)
    if progress.next_wave_is_out:
        return _gone_on(progress)
    if progress.n_essays < 2:
        return _failure(EndReason.INSUFFICIENT_ESSAYS)
    if progress.is_cancelled:
        # What is in flight is paid for: it is collected before the end, if it arrives at all.
        is_awaited = progress.n_in_flight > 0 and not progress.is_stalled
        return wait if is_awaited else _failure(EndReason.CANCELLED)
    if progress.pending > 0:
        return _failure(EndReason.STALLED) if progress.is_stalled else wait
    if progress.n_awaited_of_people > 0 and progress.completed > 0:
        return wait
    if progress.spend_cap_reached:
        return _failure(EndReason.SPEND_CAP)
    if progress.canary_failed:
        return _failure(EndReason.CANARY_FAILED)
    if progress.submitted == 0:
        if progress.nothing_left_to_ask:
            return _failure(EndReason.NO_SUCCESSES)
        return _failure(EndReason.STALLED) if progress.is_stalled else wait
    if progress.completed == 0:
        return _failure_by_cause(progress, EndReason.NO_SUCCESSES)
    success = _end_reached(progress, rules) or _early_stop(progress, rules)
    if success is not None:
        return _ending(progress, rules, success)
    if progress.is_stalled:
        return _failure(EndReason.STALLED)
    return _gone_on(progress)


def _gone_on(progress: BatchProgress) -> Decision:
    if progress.n_covered_pairs >= max_possible_pairs(progress.n_essays):
        return Decision(ContinuationDecision.RESAMPLE)
    return Decision(ContinuationDecision.REQUEST_MORE_COMPARISONS)


def _end_reached(progress: BatchProgress, rules: WorkflowRules) -> EndReason | None:
    if rules.all_at_once:
        return EndReason.SINGLE_WAVE_COMPLETE
    denominator = completion_denominator(progress.n_essays, rules)
    if progress.completed + progress.failed < denominator and not progress.nothing_left_to_ask:
        return None
    if is_small_net(progress.n_essays, rules):
        return EndReason.SMALL_NET_CAP
    budget_spent = denominator == rules.total_budget and not progress.nothing_left_to_ask
    return EndReason.BUDGET_SPENT if budget_spent else EndReason.PAIRS_EXHAUSTED


def _early_stop(progress: BatchProgress, rules: WorkflowRules) -> EndReason | None:
    """A batch that fails too often, or is in parts, has not earned an early end."""
    if not progress.is_connected or progress.success_rate < rules.min_success_rate:
        return None
    if progress.is_precise:
        return EndReason.PRECISE
    may_be_stable = (
        rules.score_stability_threshold is not None
        and progress.max_score_change is not None
        # A small net is cheap and its passes are the point: it always runs them.
        and not is_small_net(progress.n_essays, rules)
        and progress.completed + progress.failed >= rules.min_comparisons_for_stability_check
    )
    if may_be_stable and progress.max_score_change <= rules.score_stability_threshold:  # type: ignore[operator]
        return EndReason.STABLE
    return None


def _ending(progress: BatchProgress, rules: WorkflowRules, success: EndReason) -> Decision:
    if progress.success_rate < rules.min_success_rate:
        return _failure_by_cause(progress, EndReason.LOW_SUCCESS_RATE)
    if not progress.is_connected:
        return _failure(EndReason.STALLED if progress.n_in_doubt else EndReason.UNSCALABLE)
    return Decision(ContinuationDecision.FINALIZE_SCORING, success)


def _failure_by_cause(progress: BatchProgress, otherwise: EndReason) -> Decision:
    """A batch without rows that its provider was paid for waits for them, not for a judge."""
    if progress.n_in_doubt:
        return _failure(EndReason.STALLED)
    mostly_expired = 2 * progress.failed_as_expired > progress.failed
    return _failure(EndReason.EXPIRED if mostly_expired else otherwise)


def _failure(reason: EndReason) -> Decision:
    return Decision(ContinuationDecision.FINALIZE_FAILURE, reason)

"""When a batch goes on and how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.stopping.continuation import (
    BatchProgress,
    ContinuationDecision,
    EndReason,
    WorkflowRules,
    completion_denominator,
    decide_continuation,
    may_end_early,
)

RULES = WorkflowRules(
    total_budget=288,
    all_at_once=False,
    min_resampling_net_size=3,
    max_resampling_passes_for_small_net=4,
    max_resampling_passes_for_regular_net=1,
    score_stability_threshold=0.025,
    min_comparisons_for_stability_check=12,
    min_success_rate=0.8,
)
REGULAR = BatchProgress(
    n_essays=24, submitted=60, completed=60, failed=0, n_covered_pairs=60, is_connected=True
)


@pytest.mark.parametrize(
    ("n_essays", "budget", "small_size", "small_passes", "regular_passes", "expected"),
    [
        (4, 120, 3, 4, 0, 6),
        (5, 120, 5, 3, 1, 40),
        (24, 288, 3, 4, 1, 288),
        (24, 552, 3, 4, 1, 552),
        (24, 9_999, 3, 4, 1, 552),
        (2, 120, 3, 4, 1, 5),
        (120, 1_200, 3, 4, 1, 1_200),
    ],
)
def test_the_denominator_is_the_budget_or_every_pair_and_its_passes(
    n_essays: int,
    budget: int,
    small_size: int,
    small_passes: int,
    regular_passes: int,
    expected: int,
) -> None:
    """Every batch has an end that is known before it starts."""
    rules = replace(
        RULES,
        total_budget=budget,
        min_resampling_net_size=small_size,
        max_resampling_passes_for_small_net=small_passes,
        max_resampling_passes_for_regular_net=regular_passes,
    )

    assert completion_denominator(n_essays, rules) == expected


def test_a_panel_is_asked_each_pair_once_per_judge() -> None:
    """Three judges on five essays have three times as much to say."""
    rules = replace(RULES, verdicts_per_pair=3, max_resampling_passes_for_regular_net=0)

    assert completion_denominator(5, rules) == 30


@pytest.mark.parametrize(
    ("change", "rules", "decision", "reason"),
    [
        ({"submitted": 61}, {}, "wait_for_callbacks", None),
        ({"submitted": 0, "completed": 0}, {}, "wait_for_callbacks", None),
        ({}, {}, "request_more_comparisons", None),
        (
            {"submitted": 276, "completed": 276, "n_covered_pairs": 276},
            {},
            "resample",
            None,
        ),
        ({"max_score_change": 0.025}, {}, "finalize_scoring", "stable"),
        ({"max_score_change": 0.026}, {}, "request_more_comparisons", None),
        (
            {"max_score_change": 0.0, "submitted": 11, "completed": 11},
            {},
            "request_more_comparisons",
            None,
        ),
        (
            {"max_score_change": 0.0},
            {"score_stability_threshold": None},
            "request_more_comparisons",
            None,
        ),
        ({"is_precise": True}, {}, "finalize_scoring", "precise"),
        ({"is_precise": False}, {}, "request_more_comparisons", None),
        ({"is_precise": True, "is_connected": False}, {}, "request_more_comparisons", None),
        (
            {"is_precise": True, "completed": 47, "failed": 13},
            {},
            "request_more_comparisons",
            None,
        ),
        ({"submitted": 288, "completed": 288}, {}, "finalize_scoring", "budget_spent"),
        (
            {"submitted": 552, "completed": 552, "n_covered_pairs": 276},
            {"total_budget": 600},
            "finalize_scoring",
            "pairs_exhausted",
        ),
        (
            {"n_essays": 3, "submitted": 15, "completed": 15, "n_covered_pairs": 3},
            {},
            "finalize_scoring",
            "small_net_cap",
        ),
        ({}, {"all_at_once": True}, "finalize_scoring", "single_wave_complete"),
        ({"completed": 0, "failed": 60}, {}, "finalize_failure", "no_successes"),
        (
            {"submitted": 288, "completed": 144, "failed": 144},
            {},
            "finalize_failure",
            "low_success_rate",
        ),
        ({"n_essays": 1}, {}, "finalize_failure", "insufficient_essays"),
        (
            {"submitted": 288, "completed": 288, "is_connected": False},
            {},
            "finalize_failure",
            "unscalable",
        ),
        ({"spend_cap_reached": True}, {}, "finalize_failure", "spend_cap"),
        (
            {"spend_cap_reached": True, "submitted": 0, "completed": 0},
            {},
            "finalize_failure",
            "spend_cap",
        ),
        (
            {"completed": 0, "failed": 60, "failed_as_expired": 31},
            {},
            "finalize_failure",
            "expired",
        ),
        (
            {"submitted": 288, "completed": 200, "failed": 88, "failed_as_expired": 88},
            {},
            "finalize_failure",
            "expired",
        ),
        (
            {"nothing_left_to_ask": True},
            {"total_budget": 120},
            "finalize_scoring",
            "pairs_exhausted",
        ),
        (
            {"nothing_left_to_ask": True, "submitted": 0, "completed": 0},
            {},
            "finalize_failure",
            "no_successes",
        ),
        ({"is_cancelled": True, "submitted": 61}, {}, "finalize_failure", "cancelled"),
        (
            {"is_cancelled": True, "submitted": 61, "n_in_flight": 1},
            {},
            "wait_for_callbacks",
            None,
        ),
        (
            {"is_cancelled": True, "submitted": 61, "n_in_flight": 1, "is_stalled": True},
            {},
            "finalize_failure",
            "cancelled",
        ),
        ({"is_stalled": True, "submitted": 61}, {}, "finalize_failure", "stalled"),
        # The next wave could not be sent, or not even planned, for too long.
        ({"is_stalled": True}, {}, "finalize_failure", "stalled"),
        ({"is_stalled": True, "submitted": 0, "completed": 0}, {}, "finalize_failure", "stalled"),
        ({"is_stalled": True, "is_precise": True}, {}, "finalize_scoring", "precise"),
        ({"canary_failed": True}, {}, "finalize_failure", "canary_failed"),
        ({"canary_failed": True, "submitted": 61}, {}, "wait_for_callbacks", None),
        (
            {"canary_failed": True, "submitted": 0, "completed": 0},
            {},
            "finalize_failure",
            "canary_failed",
        ),
        # Failures are comparisons too: eleven verdicts and a failure are the twelve it takes.
        (
            {"max_score_change": 0.0, "submitted": 12, "completed": 11, "failed": 1},
            {},
            "finalize_scoring",
            "stable",
        ),
        # At the least success rate itself a batch may end early, and may succeed.
        ({"is_precise": True, "completed": 48, "failed": 12}, {}, "finalize_scoring", "precise"),
        (
            {"submitted": 300, "completed": 240, "failed": 60},
            {"total_budget": 300},
            "finalize_scoring",
            "budget_spent",
        ),
        # Half of the failures is not most of them.
        (
            {"completed": 0, "failed": 60, "failed_as_expired": 30},
            {},
            "finalize_failure",
            "no_successes",
        ),
    ],
)
def test_each_decision_and_each_reason_is_reached(
    change: dict[str, object], rules: dict[str, object], decision: str, reason: str | None
) -> None:
    """One row per way on and per way to end."""
    decided = decide_continuation(replace(REGULAR, **change), replace(RULES, **rules))

    assert (decided.decision, decided.reason) == (
        ContinuationDecision(decision),
        EndReason(reason) if reason else None,
    )


@given(
    n_essays=st.integers(2, 60),
    budget=st.integers(1, 400),
    failing=st.floats(0, 1),
    all_at_once=st.booleans(),
)
def test_a_batch_whose_callbacks_come_always_ends(
    n_essays: int, budget: int, failing: float, all_at_once: bool
) -> None:
    """Once the denominator is reached no more is requested, whatever failed on the way."""
    rules = replace(RULES, total_budget=budget, all_at_once=all_at_once)
    ended = completion_denominator(n_essays, rules)
    failed = round(ended * failing)

    decided = decide_continuation(
        BatchProgress(n_essays, submitted=ended, completed=ended - failed, failed=failed), rules
    )

    assert decided.decision.is_final


@given(completed=st.integers(0, 288))
def test_no_batch_succeeds_below_the_success_rate(completed: int) -> None:
    """A batch most of whose callbacks failed is never marked complete."""
    progress = replace(REGULAR, submitted=288, completed=completed, failed=288 - completed)

    decided = decide_continuation(progress, RULES)

    succeeded = decided.decision is ContinuationDecision.FINALIZE_SCORING
    assert succeeded == (completed / 288 >= 0.8)


@pytest.mark.parametrize(
    ("n_covered", "decision"), [(276, "resample"), (275, "request_more_comparisons")]
)
def test_a_wave_that_was_sent_with_the_next_has_gone_on(n_covered: int, decision: str) -> None:
    """Whatever came of it, and even if the batch has been ended since."""
    gone = replace(
        REGULAR, next_wave_is_out=True, n_covered_pairs=n_covered, completed=0, is_cancelled=True
    )

    decided = decide_continuation(gone, RULES)

    assert (decided.decision, decided.reason) == (decision, None)


@pytest.mark.parametrize(
    ("n_essays", "threshold", "wants_precision", "expected"),
    [
        (24, 0.025, False, True),
        (24, None, False, False),
        (3, 0.025, False, False),
        (3, None, True, True),
        (24, None, True, True),
    ],
)
def test_a_batch_may_end_early_by_stability_or_precision_alone(
    n_essays: int, threshold: float | None, expected: bool, *, wants_precision: bool
) -> None:
    """A small net is never stopped for being stable."""
    rules = replace(RULES, score_stability_threshold=threshold)

    assert may_end_early(n_essays, rules, wants_precision=wants_precision) is expected

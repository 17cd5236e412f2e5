"""The prefix is kept in a provider's cache where that pays, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.prompt_caching import plan_caching
from cj_pipeline.judging.prompts import Prompt

_HAIKU = load_judge("anthropic-claude-haiku-4-5")
_LONG = Prompt("", "x" * 40_000, "one", "two", "0" * 16)
"""10,000 tokens of prefix."""


def test_a_serial_bundle_is_cheaper_by_what_is_read_again() -> None:
    """By hand, Haiku 4.5: 64 x 10,000 at 1.00, against one write at 1.25 and 63 reads at 0.10."""
    plan = plan_caching(_HAIKU, _LONG, n_requests=64, mode="serial_bundle")

    assert plan.marks_prefix
    assert plan.plain_usd == pytest.approx(0.64)
    assert plan.cached_usd == pytest.approx(0.0125 + 0.063)


def test_a_cold_batch_is_never_asked_to_write_its_prefix() -> None:
    """Measured by others: cold batches read nothing, and paid for writing it every time."""
    plan = plan_caching(_HAIKU, _LONG, n_requests=48, mode="provider_batch_api")

    assert not plan.marks_prefix
    assert plan.saved_usd < 0


def test_a_single_request_has_nothing_to_read_again() -> None:
    """It would only pay for the writing."""
    assert not plan_caching(_HAIKU, _LONG, n_requests=1, mode="serial_bundle").marks_prefix


def test_requests_in_flight_together_each_write_the_prefix() -> None:
    """Four at once and five in all: four writes cost more than one read saves."""
    plan = plan_caching(_HAIKU, _LONG, n_requests=5, mode="per_request", concurrency=4)

    assert not plan.marks_prefix
    assert "4 times" in plan.reason


def test_a_prefix_too_short_to_be_kept_is_not_marked() -> None:
    """The provider would ignore the mark; the plan says how long it would have to be."""
    plan = plan_caching(
        _HAIKU, Prompt("", "x" * 400, "one", "two", "0" * 16), n_requests=64, mode="serial_bundle"
    )

    assert not plan.marks_prefix
    assert "4096" in plan.reason
    assert plan.saved_usd == 0


def test_a_provider_that_caches_unasked_needs_no_mark() -> None:
    """And bills no writing, so the saving is expected all the same."""
    plan = plan_caching(
        load_judge("openai-gpt-4-1-mini"), _LONG, n_requests=10, mode="serial_bundle"
    )

    assert not plan.marks_prefix
    assert plan.saved_usd > 0


@given(
    n_requests=st.integers(1, 500),
    length=st.integers(0, 60_000),
    concurrency=st.integers(1, 50),
    mode=st.sampled_from(["per_request", "serial_bundle", "provider_batch_api"]),
)
def test_the_prefix_is_only_ever_marked_where_it_saves(
    n_requests: int, length: int, concurrency: int, mode: str
) -> None:
    """Never where it costs, whatever the batch is like."""
    plan = plan_caching(
        _HAIKU,
        Prompt("", "x" * length, "one", "two", "0" * 16),
        n_requests=n_requests,
        mode=mode,  # type: ignore[arg-type]
        concurrency=concurrency,
    )

    assert not plan.marks_prefix or plan.saved_usd > 0

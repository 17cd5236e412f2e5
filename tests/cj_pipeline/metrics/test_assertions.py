"""What a user may assert of a batch, how it is read, and by which figure it is judged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cj_pipeline.intake.settings import resolve_settings
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.metrics.readings import Reading, Series

_BY_NAME = {metric.name: metric for metric in METRICS}


def reading(name: str, *series: Series) -> Reading:
    """Return what a metric says."""
    return Reading(_BY_NAME[name], series)


def test_a_line_and_its_parts_say_the_same() -> None:
    """Users of Prometheus write the one, users of YAML the other."""
    line = OwnAssertion.read('cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1')

    spelled_out = OwnAssertion(
        metric="cj_llm_requests_total",
        labels={"batching_mode": "provider_batch_api"},
        comparison=">=",
        value=1,
    )

    assert line == spelled_out
    assert str(line) == 'cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1'


@settings(max_examples=50)
@given(
    model=st.text(max_size=20),
    comparison=st.sampled_from([">=", "<=", "==", "!=", ">", "<"]),
    value=st.integers(-1000, 1000),
)
def test_what_is_written_is_read_again(model: str, comparison: str, value: int) -> None:
    """A model's name may hold quotes, braces and backslashes."""
    assertion = OwnAssertion(
        metric="llm_provider_cost_usd_total",
        labels={"provider": "openai", "model": model},
        comparison=comparison,  # type: ignore[arg-type]
        value=value,
    )

    assert OwnAssertion.read(str(assertion)) == assertion


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cj_comparison_total > 1", "did you mean 'cj_comparisons_total'"),
        ('cj_comparisons_total{state="failed"} == 0', "did you mean 'status'"),
        ('cj_comparisons_total{status="succeded"} > 1', "did you mean 'succeeded'"),
        ('cj_batch_waves{wave="1"} > 1', "cj_batch_waves has no labels"),
        ("cj_batch_reliability > 0.8", "a figure for each estimate: say which"),
        ("llm_provider_batch_api_items_per_job > 1", "is a histogram: assert llm_"),
        ("cj_batch_waves => 1", "is no assertion"),
        ("cj_batch_waves > many", "unable to parse string as a number"),
        ("cj_batch_waves > nan", "finite"),
        ("cj_batch_waves > 1; DROP TABLE batches", "is no assertion"),
        ('cj_comparisons_total{status="failed"', "is no assertion"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_what_was_meant(line: str, message: str) -> None:
    """A typing error that passes in silence is a check that never fails."""
    with pytest.raises(ValidationError, match=message):
        OwnAssertion.read(line)


def test_a_batch_file_tells_every_problem_of_every_assertion() -> None:
    """Fixed all at once, like anything else in it."""
    _, problems = resolve_settings(
        {
            "assertions": [
                "cj_comparison_total > 1",
                {"metric": "cj_batch_waves", "comparison": "=>", "value": "x"},
                "cj_batch_waves >= 1",
            ],
            "seed": "x",
        }
    )

    assert {problem.split(": ")[1] for problem in problems} == {
        "seed",
        "assertions.0",
        "assertions.1.comparison",
        "assertions.1.value",
    }


def test_series_are_added_up_over_the_labels_left_open() -> None:
    """As `sum()` would."""
    read = reading(
        "llm_provider_cost_usd_total", Series(("openai", "a"), 1.5), Series(("gemini", "b"), 2.0)
    )

    assert OwnAssertion.read("llm_provider_cost_usd_total <= 4").figure(read) == 3.5
    one = OwnAssertion.read('llm_provider_cost_usd_total{provider="gemini"} <= 4')
    assert one.figure(read) == 2


def test_a_histogram_is_judged_by_its_count_or_sum() -> None:
    """How many jobs, and how many requests in them."""
    buckets = (*(0,) * 3, *(2,) * 11)
    read = reading("llm_provider_batch_api_items_per_job", Series(("openai", "a"), 15.0, buckets))

    count = OwnAssertion.read("llm_provider_batch_api_items_per_job_count == 2")
    total = OwnAssertion.read("llm_provider_batch_api_items_per_job_sum == 15")

    assert count.holds(count.figure(read))
    assert total.holds(total.figure(read))


def test_what_was_never_counted_is_zero_but_a_missing_figure_is_none() -> None:
    """No failed job is no failures; no reliability is not a reliability of 0."""
    none = OwnAssertion.read('llm_provider_batch_api_jobs_total{status="failed"} == 0')
    missing = OwnAssertion.read('cj_batch_reliability{estimate="empirical_bayes"} < 0.5')

    assert none.holds(none.figure(reading("llm_provider_batch_api_jobs_total")))
    assert not missing.holds(missing.figure(reading("cj_batch_reliability")))

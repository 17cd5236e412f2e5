"""The summary of errors and the flags, on graphs small enough to count by hand."""

from __future__ import annotations

import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.quality_flags import effective_comparisons, quality_flags, se_summary
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry
from cj_pipeline.scale.score_posterior import score_posterior


def _scale(pairs: list[tuple[str, str]]) -> Scale:
    verdicts = [JudgedPair(a, b, winner) for a, b in pairs for winner in ("A", "B")]
    return fit_bradley_terry(sorted({essay for pair in pairs for essay in pair}), verdicts)


def _summary(pairs: list[tuple[str, str]]) -> dict[str, float | int]:
    scale = _scale(pairs)
    return se_summary(scale, score_posterior(scale))


TRIANGLE = [("a", "b"), ("b", "c"), ("a", "c")]


def test_the_summary_counts_comparisons_per_essay() -> None:
    """Three pairs judged twice: each essay is in four comparisons."""
    summary = _summary(TRIANGLE)

    assert summary["mean_comparisons_per_item"] == 4
    assert summary["mean_se"] == pytest.approx(summary["max_se"])
    assert summary["isolated_items"] == 0


def test_errors_are_those_reported_and_the_verdicts_own_have_their_names() -> None:
    """A flag must be about the score that people see; older runs' figure stands beside it."""
    scale = _scale(TRIANGLE)
    posterior = score_posterior(scale, ["c"])

    summary = se_summary(scale, posterior, ["a", "b"])

    assert summary["mean_se"] == pytest.approx(posterior.standard_errors[:2].mean())
    assert summary["max_se"] == pytest.approx(posterior.standard_errors[:2].max())
    assert summary["verdict_mean_se"] == pytest.approx(scale.standard_errors[:2].mean())
    assert summary["verdict_mean_se"] != pytest.approx(summary["mean_se"], abs=1e-3)
    between = (summary["mean_se"] + summary["verdict_mean_se"]) / 2
    is_larger = summary["mean_se"] > between
    flags = quality_flags(summary, mean_se_warning=between, max_se_warning=99)
    assert flags["bt_se_inflated"] == is_larger


def test_an_essay_with_a_single_opponent_is_isolated() -> None:
    """All that is known of it goes through one other essay."""
    assert _summary([*TRIANGLE, ("c", "lone")])["isolated_items"] == 1


def test_two_essays_are_not_isolated_from_one_another() -> None:
    """A batch of two has no second opponent to offer."""
    assert _summary([("a", "b")])["isolated_items"] == 0


@pytest.mark.parametrize(("mean_limit", "max_limit"), [(0.01, 9.0), (9.0, 0.01)])
def test_errors_count_as_inflated_by_their_mean_or_their_largest(
    mean_limit: float, max_limit: float
) -> None:
    """One essay that is badly known can be wrongly graded though the mean is good."""
    flags = quality_flags(_summary(TRIANGLE), mean_se_warning=mean_limit, max_se_warning=max_limit)

    assert flags["bt_se_inflated"]


def test_a_well_covered_scale_raises_no_flag() -> None:
    """Flags that are always up are not read."""
    flags = quality_flags(_summary(TRIANGLE), mean_se_warning=9.0, max_se_warning=9.0)

    assert flags == {
        "bt_se_inflated": False,
        "comparison_coverage_sparse": False,
        "has_isolated_items": False,
    }


def test_few_comparisons_per_essay_count_as_sparse() -> None:
    """The threshold is the caller's."""
    flags = quality_flags(
        _summary(TRIANGLE), mean_se_warning=9.0, max_se_warning=9.0, min_comparisons_per_item=5
    )

    assert flags["comparison_coverage_sparse"]


def test_verdicts_between_equals_count_in_full() -> None:
    """Four verdicts each on essays that came out alike."""
    assert effective_comparisons(_scale(TRIANGLE)) == pytest.approx([4, 4, 4])


def test_foregone_verdicts_count_for_less() -> None:
    """Nine wins of ten: 10 x 4 x .9 x .1, a little more by the prior's pull."""
    verdicts = [JudgedPair("x", "y", "A")] * 9 + [JudgedPair("x", "y", "B")]
    scale = fit_bradley_terry(["x", "y"], verdicts, prior_comparisons=0)

    assert effective_comparisons(scale) == pytest.approx([3.6, 3.6])

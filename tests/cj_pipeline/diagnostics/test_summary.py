"""A finished scale's figures: all that the field expects, named, finite, and honest about gaps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.summary import scale_statistics
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.scale.ranks import rank_intervals
from cj_pipeline.scale.score_posterior import score_posterior

ESSAYS = tuple(f"essay-{i}" for i in range(7))


def judged_by(*judges: str, rounds: int = 2, seed: int = 3) -> list[JudgedPair]:
    """Return verdicts of alike judges on all pairs in both orders."""
    rng = np.random.default_rng(seed)
    quality = dict(zip(ESSAYS, np.linspace(-2, 2, len(ESSAYS)).tolist(), strict=True))
    return [
        JudgedPair(a, b, "A" if rng.random() < p else "B", judge)
        for _ in range(rounds)
        for judge in judges
        for a in ESSAYS
        for b in ESSAYS
        if a != b
        for p in (1 / (1 + np.exp(quality[b] - quality[a])),)
    ]


def test_a_panels_statistics_have_every_figure_under_its_name() -> None:
    """What a reader looks for must not have to be worked out from the store."""
    judged = judged_by("one", "two", "three")
    scale = fit_bradley_terry(ESSAYS, judged, position_effect=True)

    found = scale_statistics(scale, score_posterior(scale), judged)

    assert found["not_given"] == {}
    reliability = found["student_reliability"]
    assert 0 < reliability["lower"] < reliability["value"] < reliability["upper"] < 1
    assert not reliability["is_worth_a_figure"]  # of seven essays only the limits say anything
    assert "empirical_bayes_with_anchors" not in found
    assert found["split_half_by_judges"]["lower"] <= found["split_half_by_judges"]["median"]
    assert found["split_half_by_comparisons"]["n_splits"] > 0
    assert {"scale_separation_reliability", "epsilon_adjusted_reliability"} <= found.keys()
    assert 0 < found["transitivity"]["n_triples"] <= 35
    assert set(found["position_effects"]) == {"one", "two", "three"}
    assert len(found["agreement_between_judges"]) == 3
    assert found["score_version"] == 2
    assert found["panel"]["one"]["largest_rank_change_without"] >= 0
    assert found["judges"]["two"]["swap_agreement"]["n"] == 21


def test_what_one_judge_cannot_tell_is_named_with_its_reason() -> None:
    """A missing figure must not look like a forgotten one."""
    judged = judged_by("one")
    scale = fit_bradley_terry(ESSAYS, judged)

    found = scale_statistics(scale, score_posterior(scale), judged)

    assert "split_half_by_judges" in found["not_given"]
    assert "panel" not in found


def test_statistics_are_json_without_anything_that_is_no_number() -> None:
    """One verdict per pair has no repeats, whose share is then no number."""
    judged = [v for v in judged_by("one", rounds=1) if v.essay_a < v.essay_b]
    scale = fit_bradley_terry(ESSAYS, judged)

    found = scale_statistics(scale, score_posterior(scale), judged)

    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["judges"]["one"]["repeat_agreement"]["share"] is None


def test_ranks_among_some_run_from_one_without_gaps() -> None:
    """Students are ranked among students, whatever anchors are between them."""
    scale = fit_bradley_terry(ESSAYS, judged_by("one"))
    some = np.array([1, 3, 6])

    found = rank_intervals(score_posterior(scale), among=some)

    assert sorted(found.rank.tolist()) == [1, 2, 3]
    assert found.essay_ids == ("essay-1", "essay-3", "essay-6")
    assert np.all((found.lower <= found.rank) & (found.rank <= found.upper))


def test_large_batches_have_the_same_intervals_by_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond some size the covariance is never formed; draws come from the graph itself."""
    scale = fit_bradley_terry(ESSAYS, judged_by("one", rounds=3))
    exact = rank_intervals(score_posterior(scale))

    monkeypatch.setattr("cj_pipeline.scale.score_posterior.EXACT_UP_TO", 1)
    drawn = rank_intervals(score_posterior(replace(scale)))  # another object: not kept from before

    assert np.max(np.abs(exact.lower - drawn.lower)) <= 1
    assert np.max(np.abs(exact.upper - drawn.upper)) <= 1

"""What is reported of scores: intervals that hold whatever chose the pairs, and about students."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.options import Strategy
from cj_pipeline.diagnostics.spread import likely_spread
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.scale import score_posterior as entry
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.tallies import Verdicts


def judged_at_random(truth: Floats, per_essay: int, seed: int) -> Scale:
    """Return the scale of a logistic judge asked pairs at random."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    orders = [rng.permutation(n) for _ in range(per_essay)]
    first = np.concatenate([order[: n // 2] for order in orders])
    second = np.concatenate([order[n // 2 : 2 * (n // 2)] for order in orders])
    return _fitted(truth, first, second, rng)


def _fitted(truth: Floats, first: Floats, second: Floats, rng: np.random.Generator) -> Scale:
    ids = tuple(f"e{i:03d}" for i in range(len(truth)))
    won = 2 * (rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first])))
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def judged_by_choice(truth: Floats, per_essay: int, seed: int, strategy: Strategy) -> Scale:
    """Return the scale of a logistic judge asked, wave by wave, what the strategy chooses."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    graph = ComparisonGraph(tuple(f"e{i:03d}" for i in range(n)), frozenset(), ())
    scale: Scale | None = None
    won = np.empty(0, dtype=np.int64)
    for wave in range(per_essay // 2):
        chosen = choose_wave(graph, strategy=strategy, size=n, seed=seed * 100 + wave)
        graph = replace(
            graph, shown=(*graph.shown, *((pair.essay_a, pair.essay_b) for pair in chosen))
        )
        first, second = graph.shown_indices.T
        new = slice(len(won), None)
        p = 1 / (1 + np.exp(truth[second[new]] - truth[first[new]]))
        won = np.concatenate([won, 2 * (rng.random(len(p)) < p)])
        scale = fit_verdicts(
            Verdicts(graph.essay_ids, ("j",), first, second, won, np.zeros_like(first))
        )
        graph = replace(
            graph,
            scores=scale.scores,
            information=scale.information,
            spread=likely_spread(scale).logits,
        )
    assert scale is not None
    return scale


@cache
def adaptive(sd: float, seed: int) -> tuple[Floats, Scale, ScorePosterior]:
    """Return the truth and what is told of it, for 20 essays under the default strategy."""
    truth = np.random.default_rng(seed).normal(0, sd, 20)
    scale = judged_by_choice(truth, 12, seed, "adaptive")
    return truth - truth.mean(), scale, score_posterior(scale)


@pytest.mark.parametrize("sd", [0.5, 1.5])
def test_intervals_hold_under_the_default_strategy(sd: float) -> None:
    """Verdict-only ones do not: pairs were chosen by what luck had made of the scores."""
    held, verdict_only = [], []
    for seed in range(8):
        truth, scale, found = adaptive(sd, seed)
        held.append(np.mean((found.lower <= truth) & (truth <= found.upper)))
        off = np.abs(scale.scores - truth)
        verdict_only.append(np.mean(off <= 1.96 * scale.standard_errors))

    assert np.mean(held) > 0.88
    assert np.mean(held) > np.mean(verdict_only)


def test_the_reported_score_is_nearer_to_the_truth_and_on_its_scale() -> None:
    """With adaptive pairs the verdict-only score is off by twice as much where essays are close."""
    ours, verdict_only = [], []
    for seed in range(8):
        truth, scale, found = adaptive(0.5, seed)
        ours.append(np.mean((found.scores - truth) ** 2))
        verdict_only.append(np.mean((scale.scores - truth) ** 2))

    assert np.mean(ours) < 0.5 * np.mean(verdict_only)


def test_the_same_essays_judged_twice_have_not_changed() -> None:
    """Today's judge twice on the same essays; a change of one would be seen as beyond noise."""
    from cj_pipeline.diagnostics.changes import score_changes

    ids = [f"e{i:03d}" for i in range(20)]
    truth = np.random.default_rng(5).normal(0, 1.0, 20)
    n_false = 0
    for seed in range(6):
        one, other = (
            score_posterior(judged_by_choice(truth, 12, 50 + 2 * seed + k, "adaptive"))
            for k in range(2)
        )
        n_false += any(each.is_beyond_noise for each in score_changes(one, other, ids))

    assert n_false == 0


def test_reliability_is_the_students_whatever_anchors_lie_beside_them() -> None:
    """Twelve anchors far apart made .6 of students who do not differ at all."""
    anchors = np.linspace(-3, 3, 12)
    ids = [f"e{i:03d}" for i in range(12)]
    for sd, low, high in ((0.0, 0.0, 0.45), (1.4, 0.7, 0.9)):
        found = []
        for seed in range(4):
            students = np.random.default_rng(seed).normal(0, sd, 40)
            scale = judged_at_random(np.concatenate([anchors, students]), 15, seed)
            found.append(score_posterior(scale, ids).reliability)
        assert low <= np.mean([each.value for each in found]) <= high
        assert all(each.n_students == 40 for each in found)
        assert all(each.cannot_be_told_apart == (sd == 0) for each in found)


def test_reliability_is_the_share_that_is_real_and_its_limits_hold_it() -> None:
    """Random pairs of 40 students: within .05 of the squared correlation with the truth."""
    told, true, held = [], [], []
    for seed in range(12):
        truth = np.random.default_rng(seed).normal(0, 0.8, 40)
        found = score_posterior(judged_at_random(truth, 14, seed))
        told.append(found.reliability.value)
        true.append(np.corrcoef(found.scores, truth)[0, 1] ** 2)
        held.append(found.reliability.lower <= true[-1] <= found.reliability.upper)

    assert np.mean(told) == pytest.approx(np.mean(true), abs=0.05)
    assert np.mean(held) > 0.8


def test_of_a_few_students_only_the_limits_are_told() -> None:
    """Five essays carry no reliability: the truth may be nearly anything."""
    found = score_posterior(judged_at_random(np.linspace(-1, 1, 6), 10, 1)).reliability

    assert not found.is_worth_a_figure
    assert found.lower is not None
    assert found.upper is not None
    assert found.upper - found.lower > 0.3


def test_of_one_student_among_anchors_there_is_no_reliability() -> None:
    """But a score with an interval, as of any essay."""
    scale = judged_at_random(np.linspace(-2, 2, 8), 10, 1)
    found = score_posterior(scale, scale.essay_ids[1:])

    assert found.reliability.value is None
    assert np.all(found.standard_errors > 0)


def test_anchors_alone_are_scored_too() -> None:
    """As judges are tried on anchors only; then they are the population."""
    scale = judged_at_random(np.linspace(-2, 2, 8), 10, 1)

    found = score_posterior(scale, scale.essay_ids)

    assert not found.has_students
    assert found.scores.tolist() == score_posterior(scale).scores.tolist()


def test_large_batches_come_to_the_same_by_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some hundred essays the covariance is not written out and the spread is its mode."""
    truth = np.random.default_rng(1).normal(0, 1.0, 200)
    anchors = ["e000", "e001", "e002", "e003"]
    scale = judged_at_random(truth, 12, 1)
    exact = score_posterior(scale, anchors)

    monkeypatch.setattr(entry, "EXACT_UP_TO", 1)
    large = score_posterior(replace(scale), anchors)

    np.testing.assert_allclose(large.scores, exact.scores, atol=0.06)
    np.testing.assert_allclose(large.standard_errors, exact.standard_errors, rtol=0.08)
    assert large.reliability.value == pytest.approx(exact.reliability.value, abs=0.02)
    assert large.reliability.lower == pytest.approx(exact.reliability.lower, abs=0.05)
    some = ["e005", "e017"]
    np.testing.assert_allclose(
        large.covariance_among(some), exact.covariance_among(some), atol=0.02
    )
    assert np.std(large.drawn(400, 0)[:, 7]) == pytest.approx(exact.standard_errors[7], rel=0.15)


def test_an_essay_that_won_everything_is_drawn_in() -> None:
    """Luck is part of winning everything; the verdict-only score rests on its prior alone."""
    truth = np.array([6.0, 0.5, 0.2, 0.0, -0.2, -0.5, -6.0, 0.1, -0.1, 0.3])
    scale = judged_at_random(truth, 9, 3)
    assert scale.one_sided

    found = score_posterior(scale)

    assert np.all(np.isfinite(found.scores))
    for essay_id in scale.one_sided:
        place = found.place[essay_id]
        assert abs(found.scores[place]) < abs(scale.scores[place])

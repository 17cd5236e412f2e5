"""Ranks, their intervals, and the probability of standing above."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import fit_bradley_terry
from cj_pipeline.scale.certainty import ScorePosterior
from cj_pipeline.scale.ranks import probability_above, rank_intervals, ranks
from cj_pipeline.scale.score_posterior import score_posterior

IDS = [f"e{i:02d}" for i in range(12)]


def _scale(n_verdicts: int, spread: float, seed: int = 0) -> tuple[np.ndarray, ScorePosterior]:
    rng = np.random.default_rng(seed)
    truth = np.linspace(-spread, spread, 12)
    judged = []
    for k in range(n_verdicts):
        a = k % 12
        b = (a + rng.integers(1, 12)) % 12
        wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        judged.append(JudgedPair(IDS[a], IDS[b], "A" if wins else "B"))
    return truth, score_posterior(fit_bradley_terry(IDS, judged))


def test_equal_scores_share_the_better_rank() -> None:
    """As in sports: 1, 2, 2, 4."""
    assert ranks(np.array([0.5, 2.0, 0.5, -1.0])).tolist() == [2, 1, 2, 4]


def test_an_essay_is_above_another_as_surely_as_the_other_is_below() -> None:
    """The two probabilities are of the same event."""
    _, scale = _scale(240, 2.0)

    upper, lower = probability_above(scale, "e03", "e07"), probability_above(scale, "e07", "e03")

    assert upper + lower == pytest.approx(1)


def test_what_errors_have_in_common_cancels() -> None:
    """Errors on the mean-centred gauge are correlated: adding variances alone would mislead."""
    judged = [JudgedPair("x", "y", w) for w in "AAAB"]  # type: ignore[arg-type]
    scale = score_posterior(fit_bradley_terry(["x", "y"], judged))

    from scipy.stats import norm

    # For two essays the scores are d/2 and -d/2, so the difference has twice the standard error.
    by_hand = norm.cdf((scale.scores[0] - scale.scores[1]) / (2 * scale.standard_errors[0]))
    assert probability_above(scale, "x", "y") == pytest.approx(by_hand)


def test_more_verdicts_narrow_the_rank_intervals() -> None:
    """Intervals that did not shrink would say nothing."""
    _, few = _scale(120, 1.0)
    _, many = _scale(6000, 1.0)

    width = [np.mean(found.upper - found.lower) for found in map(rank_intervals, (few, many))]

    assert width[1] < 0.5 * width[0]


def test_rank_intervals_hold_the_true_rank_at_least_as_often_as_they_say() -> None:
    """Over 40 simulated batches, all twelve essays each; ranks are whole, so rather more often."""
    held = []
    for seed in range(40):
        truth, scale = _scale(360, 1.5, seed)
        found = rank_intervals(scale, seed=seed)
        true_rank = ranks(truth)
        held.append(np.mean((found.lower <= true_rank) & (true_rank <= found.upper)))

    assert np.mean(held) > 0.95


def test_the_same_seed_gives_the_same_intervals() -> None:
    """A report printed twice must not differ."""
    _, scale = _scale(240, 2.0)

    assert np.array_equal(rank_intervals(scale, seed=3).upper, rank_intervals(scale, seed=3).upper)


def _round_robin(wins: list[int]) -> list[JudgedPair]:
    """Return one verdict on every pair of six essays, by which they have these wins."""
    pairs = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    for outcome in range(2 ** len(pairs)):
        won = [a if outcome >> k & 1 else b for k, (a, b) in enumerate(pairs)]
        if [won.count(i) for i in range(6)] == wins:
            return [
                JudgedPair(f"e{a}", f"e{b}", "A" if w == a else "B")
                for (a, b), w in zip(pairs, won, strict=True)
            ]
    raise AssertionError


def test_equal_evidence_gives_equal_ranks_and_equal_intervals() -> None:
    """Of all pairs judged once, wins are all there is to know; rounding must not decide."""
    ids = [f"e{i}" for i in range(6)]
    posterior = score_posterior(fit_bradley_terry(ids, _round_robin([4, 4, 3, 2, 1, 1])))

    found = rank_intervals(posterior)

    assert found.rank.tolist() == [1, 1, 3, 4, 5, 5]
    for one, other in ((0, 1), (4, 5)):
        assert found.lower[one] == found.lower[other]
        assert found.upper[one] == found.upper[other]
        assert probability_above(posterior, ids[one], ids[other]) == 0.5


@given(st.permutations(range(8)), st.integers(0, 2**28 - 1))
@settings(max_examples=40, deadline=None)
def test_ranks_depend_on_the_evidence_and_not_on_the_order_of_essays(
    order: list[int], outcome: int
) -> None:
    """The same verdicts told in another order give each essay the same rank: ties stay ties."""
    ids = [f"e{i}" for i in range(8)]
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]
    judged = [
        JudgedPair(ids[a], ids[b], "A" if outcome >> k & 1 else "B")
        for k, (a, b) in enumerate(pairs)
    ]
    wins = [
        sum(
            v.winner == ("A" if v.essay_a == e else "B")
            for v in judged
            if e in (v.essay_a, v.essay_b)
        )
        for e in ids
    ]
    turned = [ids[i] for i in order]

    one = rank_intervals(score_posterior(fit_bradley_terry(ids, judged)))
    other = rank_intervals(score_posterior(fit_bradley_terry(turned, judged[::-1])))

    ranked = dict(zip(other.essay_ids, other.rank.tolist(), strict=True))
    assert [ranked[e] for e in ids] == one.rank.tolist()
    assert one.rank.tolist() == [1 + sum(w > mine for w in wins) for mine in wins]

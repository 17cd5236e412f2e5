"""What verdicts share: repeats, clones, judges that see essays differently."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.dependence import (
    has_shared_pairs,
    weights_of,
)
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import ScoringRules, score_verdicts
from cj_pipeline.scale.shared_evidence import Correlation, Dependence
from cj_pipeline.scale.tallies import as_verdicts

IDS = [f"e{i:02d}" for i in range(30)]
RULES = ScoringRules(discrimination="off")


@cache
def judged(
    seed: int, *, n_judges: int = 1, repeats: int = 1, luck: float = 0.0, own: float = 0.0
) -> tuple[tuple[float, ...], tuple[JudgedPair, ...]]:
    """Return true scores, and verdicts of judges all asked the same 150 pairs at random."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.4, 30)
    seen = [truth + rng.normal(0, own, 30) for _ in range(n_judges)]
    verdicts = []
    named = rng.permutation(30).tolist()
    for apart in (1, 4, 7, 10, 13):
        for place in range(30):
            a, b = named[place], named[(place + apart) % 30]
            shared = rng.random()
            for judge in range(n_judges):
                for k in range(repeats):
                    draw = shared if rng.random() < luck else rng.random()
                    first, second = (a, b) if k % 2 == 0 else (b, a)
                    wins = draw < 1 / (1 + np.exp(seen[judge][b] - seen[judge][a]))
                    winner = "A" if wins == (first == a) else "B"
                    verdicts.append(JudgedPair(IDS[first], IDS[second], winner, f"j{judge}"))  # type: ignore[arg-type]
    return tuple(truth - truth.mean()), tuple(verdicts)


def scored(seed: int, **how: float) -> Scale:
    return score_verdicts(IDS, judged(seed, **how)[1], RULES)  # type: ignore[arg-type]


def held(rules: ScoringRules, **how: float) -> float:
    """Return how often 95 % intervals hold the truth, over eight batches."""
    found = []
    for seed in range(8):
        truth, verdicts = judged(seed, **how)  # type: ignore[arg-type]
        posterior = score_posterior(score_verdicts(IDS, verdicts, rules))
        found.append(np.mean((posterior.lower <= truth) & (truth <= posterior.upper)))
    return float(np.mean(found))


def dependence(seed: int, **how: float) -> Dependence:
    found = scored(seed, **how).dependence
    assert found is not None
    return found


def mean_over_batches(figure: str, **how: float) -> float:
    return float(np.mean([getattr(dependence(seed, **how), figure) for seed in range(6)]))


def test_a_deterministic_judge_asked_again_tells_nothing_new() -> None:
    """Three times the verdicts, one third of them of worth: intervals as wide as of one."""
    found = dependence(1, repeats=3, luck=1.0)
    once = score_verdicts(IDS, judged(1, repeats=3, luck=1.0)[1][::3], RULES)

    assert found.repeated is not None
    assert found.repeated.value > 0.9
    assert found.effective_verdicts == pytest.approx(found.n_verdicts / 3, rel=0.1)
    thrice = scored(1, repeats=3, luck=1.0)
    assert thrice.standard_errors.mean() == pytest.approx(once.standard_errors.mean(), rel=0.06)
    # How many verdicts there were is told as before, whatever each counts.
    assert thrice.n_comparisons.sum() == 2 * found.n_verdicts


def test_a_judge_that_decides_afresh_keeps_its_verdicts() -> None:
    """Repeats by chance alone are as good as other pairs'."""
    found = [dependence(seed, repeats=3) for seed in range(4)]

    assert np.mean([each.repeated.value for each in found if each.repeated]) < 0.1
    assert all(each.effective_verdicts > 0.75 * each.n_verdicts for each in found)


def test_clones_are_worth_one_judge_and_independent_judges_as_many_as_they_are() -> None:
    """The size of a panel as its verdicts show it, within a fifth of the truth."""
    assert mean_over_batches("effective_judges", n_judges=3, luck=1.0) == pytest.approx(1, rel=0.2)
    assert mean_over_batches("effective_judges", n_judges=3) == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("how", [{"luck": 1.0}, {"luck": 0.7}, {"own": 0.7}])
def test_a_panels_intervals_hold_whatever_its_judges_share(how: dict[str, float]) -> None:
    """Counted apart they are too short: clones' held .74."""
    apart = held(ScoringRules(discrimination="off", dependence="off"), n_judges=3, **how)
    ours = held(RULES, n_judges=3, **how)

    assert ours > 0.9
    assert ours > apart + 0.02


def test_what_judges_see_differently_is_a_variance_of_its_own() -> None:
    """Standard deviation .7 between judges, and next to none where they see alike."""
    different = mean_over_batches("judge_variance", n_judges=3, own=0.7)
    alike = mean_over_batches("judge_variance", n_judges=3)

    assert np.sqrt(different) == pytest.approx(0.7, abs=0.2)
    assert np.sqrt(alike) < 0.35
    assert dependence(0, n_judges=3, own=0.7).per_judge == pytest.approx(1 / 3, abs=0.03)


def test_what_judges_see_differently_widens_errors_and_covariance_alike() -> None:
    """Grades go by the covariance, intervals by the errors: they must not contradict."""
    scale = scored(3, n_judges=3, own=0.7)

    assert scale.between_judges > 0
    np.testing.assert_allclose(np.diag(scale.covariance), scale.standard_errors**2)
    some = ["e03", "e11"]
    np.testing.assert_allclose(
        scale.covariance_among(some), scale.covariance[np.ix_([3, 11], [3, 11])], atol=1e-9
    )


def test_one_judge_without_repeats_is_scored_as_ever() -> None:
    """There is nothing to be shared."""
    verdicts = [JudgedPair(a, b, "A") for a, b in itertools.pairwise(IDS)]
    verdicts.append(JudgedPair(IDS[-1], IDS[0], "A"))

    assert not has_shared_pairs(as_verdicts(IDS, verdicts))
    assert score_verdicts(IDS, verdicts, RULES).dependence is None


def test_weights_are_those_of_the_pairs_correlations() -> None:
    """For m verdicts of one correlation 1 / (1 + (m - 1) rho); mixed ones by both."""
    verdicts = as_verdicts(
        ["x", "y", "z"],
        [
            JudgedPair("x", "y", "A", "one"),
            JudgedPair("y", "x", "A", "one"),
            JudgedPair("x", "y", "B", "two"),
            JudgedPair("y", "z", "B", "two"),
        ],
    )
    alone = Correlation(0.5, 100, is_estimated=True)

    weights = weights_of(verdicts, alone, Correlation(0.2, 100, is_estimated=True))

    among = np.array([[1, 0.5, 0.2], [0.5, 1, 0.2], [0.2, 0.2, 1]])
    np.testing.assert_allclose(weights[:3], np.linalg.solve(among, np.ones(3)))
    assert weights[3] == 1


def test_of_a_few_repeats_what_is_usual_is_taken() -> None:
    """A correlation of a handful would be chance."""
    verdicts = list(judged(2)[1])
    found = score_verdicts(IDS, [*verdicts, *verdicts[:5]], RULES).dependence

    assert found is not None
    assert found.repeated is not None
    assert not found.repeated.is_estimated
    assert found.n_verdicts - 5 < found.effective_verdicts < found.n_verdicts

"""The posterior of large batches comes to rest, whatever was judged and by whomever."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cj_pipeline.arrays import Floats
from cj_pipeline.scale import large_posterior as module
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.information import Information, covariance
from cj_pipeline.scale.laplacian import Inverse, NetMatrix, inverted
from cj_pipeline.scale.large_posterior import large_posterior
from cj_pipeline.scale.tallies import Indices, Verdicts

DESIGNS = ("random", "neighbours", "path", "star", "two halves")
JUDGES = ("noisy", "never errs", "knows nothing", "always the first")


def judged(n: int, design: str, judge: str, per_essay: int, sd: float, seed: int) -> Scale:
    """Return a scale of one of many kinds of graphs, by one of many kinds of judges."""
    rng = np.random.default_rng(seed)
    first, second = _pairs(n, design, per_essay * n // 2, rng)
    truth = rng.normal(0, sd, n)
    apart = truth[first] - truth[second]
    p = {
        "noisy": 1 / (1 + np.exp(-apart)),
        "never errs": apart > 0,
        "knows nothing": np.full(len(apart), 0.5),
        "always the first": np.ones(len(apart)),
    }[judge]
    won = 2 * (rng.random(len(first)) < p)
    ids = tuple(f"e{i:04d}" for i in range(n))
    return fit_verdicts(Verdicts(ids, ("j",), first, second, won, np.zeros_like(first)))


def _pairs(n: int, design: str, size: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    ring = np.arange(n)
    if design == "path":
        return ring[:-1], ring[1:]
    if design == "star":
        return np.zeros(n - 1, dtype=np.int64), ring[1:]
    first = rng.integers(0, n, size)
    second = rng.integers(0, n, size)
    if design == "neighbours":
        second = (first + rng.integers(1, 6, size)) % n
    if design == "two halves":
        half = n // 2
        first, second = first % half, second % half
        beyond = half * rng.integers(0, 2, size)
        first, second = first + beyond, second + beyond
    first, second = np.append(first, ring), np.append(second, (ring + 1) % n)
    differ = first != second
    return first[differ], second[differ]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(121, 420),
    design=st.sampled_from(DESIGNS),
    judge=st.sampled_from(JUDGES),
    per_essay=st.integers(2, 20),
    sd=st.sampled_from([0.0, 0.5, 1.5, 5.0]),
    n_anchors=st.sampled_from([0, 0, 9]),
    seed=st.integers(0, 2**20),
)
def test_every_design_comes_to_rest(
    n: int, design: str, judge: str, per_essay: int, sd: float, n_anchors: int, seed: int
) -> None:
    """Scores that still move are wrong scores, and nothing in them would show it."""
    scale = judged(n, design, judge, per_essay, sd, seed)
    is_student = np.arange(n) >= n_anchors

    found = large_posterior(scale, is_student)

    rounds = module._Rounds(scale, is_student)
    place = np.concatenate(
        [found.scores - found.scores[is_student].mean(), _weights(rounds, found)]
    )
    again = rounds.rest(place, float(np.log(found.spread)), 1e-6)
    assert np.isfinite(found.scores).all()
    assert again.state.mean - again.state.mean.mean() == pytest.approx(
        found.scores, abs=0.1 * again.typical_error
    )
    assert abs(again.of_spread) < 1e-2


def _weights(rounds: module._Rounds, found: module.ScorePosterior) -> np.ndarray:
    layout = rounds._layout
    apart = found.difference_variances(layout.first, layout.second)
    return module._log(rounds._per_pair(rounds._told(found.scores, apart)))


def test_a_spread_that_hardly_tells_is_found_all_the_same() -> None:
    """Each round of expectation-maximisation takes off a hundredth here; forty end nowhere."""
    scale = judged(320, "star", "noisy", 2, 0.0, seed=1)

    found = large_posterior(scale, np.ones(320, dtype=bool))

    rounds = module._Rounds(scale, np.ones(320, dtype=bool))
    here = rounds.rest(rounds.start[0], float(np.log(found.spread)), 1e-6)
    assert abs(here.of_spread) < 1e-5


def test_scores_that_do_not_come_to_rest_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better no scores than scores that were still on their way."""
    monkeypatch.setattr(module, "_MAX_SPREADS", 1)
    scale = judged(320, "random", "noisy", 6, 1.5, seed=1)

    with pytest.raises(module.UnscalableBatchError, match="still moved"):
        large_posterior(scale, np.ones(320, dtype=bool))


@pytest.mark.parametrize("drawn", [module._drawn_by_root, module._drawn_on_graph])
def test_draws_vary_as_the_information_says(
    drawn: Callable[[NetMatrix, int, np.random.Generator], Floats],
) -> None:
    """Rank intervals are read off draws; whichever way makes them, their covariance is one."""
    essays = judged(320, "random", "noisy", 8, 1.5, seed=2).information.essays
    n_draws = 4_000

    rng = np.random.default_rng(0)
    found = drawn(essays, n_draws, rng)

    expected = covariance(Information(essays, np.empty((320, 0)), np.empty((0, 0))))
    root = np.linalg.cholesky(expected + np.ones((320, 320)))
    whitened = np.linalg.solve(root, (found + rng.normal(size=(n_draws, 1))).T)
    assert found.shape == (n_draws, 320)
    assert np.var(found, axis=0) == pytest.approx(np.diag(expected), rel=0.15)
    # Off the diagonal nothing is left but chance, of which the largest of 51,040 is 5 deviations.
    left = np.cov(whitened) - np.eye(320)
    np.fill_diagonal(left, 0.0)
    assert np.abs(left).max() < 6 / np.sqrt(n_draws)


def test_single_precision_on_the_way_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rounds that lead somewhere else anyway may be rounded."""
    scale = judged(320, "random", "noisy", 6, 1.5, seed=1)
    everyone = np.ones(320, dtype=bool)
    found = large_posterior(scale, everyone)
    monkeypatch.setattr(module, "_SINGLE_FROM", np.inf)

    doubled = large_posterior(scale, everyone)

    assert found.scores == pytest.approx(doubled.scores, abs=2e-5)
    assert found.standard_errors == pytest.approx(doubled.standard_errors, rel=2e-5)


def test_graphs_that_single_precision_would_blur_are_kept_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Verdicts by the ten thousand on an essay drown the prior, and single precision with it."""
    used = set[type]()

    def spied(essays: NetMatrix, dtype: type[np.float32] | type[np.float64]) -> Inverse:
        used.add(dtype)
        return inverted(essays, dtype)

    monkeypatch.setattr(module, "inverted", spied)
    everyone = np.ones(320, dtype=bool)
    large_posterior(judged(320, "star", "noisy", 2, 1.5, seed=1), everyone)
    assert used == {np.float32, np.float64}

    used.clear()
    monkeypatch.setattr(module, "_TAME", 1.0)
    large_posterior(judged(320, "star", "noisy", 2, 1.5, seed=1), everyone)
    assert used == {np.float64}


def test_errors_written_out_are_those_of_the_fit_itself() -> None:
    """The rounds' own variances are the standard errors; nothing else computes them again."""
    found = large_posterior(judged(320, "random", "noisy", 6, 1.5, seed=1), np.ones(320, bool))

    assert found.standard_errors**2 == pytest.approx(
        np.diag(found.covariance_among(found.essay_ids)), rel=1e-6
    )

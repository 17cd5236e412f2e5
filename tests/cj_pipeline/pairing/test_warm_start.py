"""Initial scores may choose the first pairs, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, Parts
from cj_pipeline.pairing.warm_start import (
    initial_scores_from_earlier,
    initial_scores_from_order,
    initial_scores_from_texts,
)
from cj_pipeline.pairing.waves import choose_wave

IDS = tuple(f"essay-{i:02d}" for i in range(40))


def test_a_rough_order_becomes_ranks_with_ties() -> None:
    """A teacher sorts into piles more surely than into a row."""
    initial_scores = initial_scores_from_order(
        ["a", "b", "c", "d", "e"], [["d"], ["a", "c"], ["b"]]
    )

    assert initial_scores.tolist() == [1.5, 3.0, 1.5, 0.0, 1.5]


def test_an_order_that_names_strangers_is_refused_with_their_names() -> None:
    """A misspelt essay would silently be guessed in the middle."""
    with pytest.raises(SettingsError, match="'zoe' is not in the batch; 'a' is named twice"):
        initial_scores_from_order(["a", "b"], [["a", "zoe"], ["a"]])


def test_essays_without_an_earlier_score_lie_at_the_mean() -> None:
    """Nothing is known of them."""
    assert initial_scores_from_earlier(["a", "new"], {"a": 2.0, "b": 0.0}).tolist() == [2.0, 1.0]


def test_texts_are_guessed_by_their_vocabulary() -> None:
    """Repeating oneself is not a merit."""
    poor, rich = initial_scores_from_texts(["good good good good", "a plain but varied text"])

    assert poor < rich


@pytest.mark.parametrize("strategy", ["adaptive", "coverage"])
def test_first_pairs_are_guessed_close_and_still_make_one_even_net(strategy: str) -> None:
    """Close pairs are best, but initial scores must not cost what every first wave promises."""
    initial_scores = np.random.default_rng(1).permutation(40).astype(float)
    guided = ComparisonGraph(IDS, frozenset(), (), expected=initial_scores)
    unguided = ComparisonGraph(IDS, frozenset(), ())

    def apart(graph: ComparisonGraph) -> float:
        wave = choose_wave(graph, strategy=strategy, size=60, seed=0)  # type: ignore[arg-type]
        shown = tuple((pair.essay_a, pair.essay_b) for pair in wave)
        after = replace(graph, shown=shown)
        assert Parts(after).n_parts == 1
        assert np.ptp(after.n_comparisons) <= 1
        first, second = after.shown_indices.T
        return float(np.abs(initial_scores[first] - initial_scores[second]).mean())

    assert apart(guided) < 0.5 * apart(unguided)


def test_once_there_are_scores_the_guess_no_longer_counts() -> None:
    """Verdicts know better."""
    shown = tuple(itertools.pairwise(IDS))
    graph = ComparisonGraph(IDS, frozenset(), shown, np.linspace(-2, 2, 40), 0.3 * np.eye(40))
    guided = replace(graph, expected=np.arange(40.0)[::-1])

    waves = [choose_wave(n, strategy="adaptive", size=20, seed=0) for n in (graph, guided)]

    assert waves[0] == waves[1]

"""How far off ranks are, and what another wave would take off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.scale.information import covariance
from cj_pipeline.scale.ranks import ranks
from cj_pipeline.stopping.expected_gain import outlook
from tests.cj_pipeline.pairing.test_adaptive import scored_graph


def as_grades(graph: ComparisonGraph) -> ComparisonGraph:
    assert graph.scores is not None
    return replace(graph, boundaries=tuple(np.quantile(graph.scores, [0.25, 0.5, 0.75])))


def test_the_typical_error_is_that_of_ranks_drawn_from_what_is_believed() -> None:
    """The first-order figure against ranks counted in ten thousand draws of the scores."""
    graph = scored_graph(40, 12)
    assert graph.scores is not None
    assert graph.information is not None
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(graph.scores, covariance(graph.information), size=4000)
    drawn = np.array([ranks(draw) for draw in draws])

    found = outlook(graph, 20, seed=0)

    spread = float(np.sqrt(np.mean(drawn.var(axis=0))))
    assert found.typical_error == pytest.approx(spread, rel=0.15)


def test_a_wave_is_expected_to_take_some_of_the_error_off() -> None:
    """And the next one less: what is known already cannot be learnt again."""
    early, late = (
        outlook(scored_graph(40, 6), 20, seed=0),
        outlook(scored_graph(40, 24), 20, seed=0),
    )

    assert early.after_wave < early.typical_error
    assert late.gain_per_comparison < early.gain_per_comparison


def test_where_grades_are_the_goal_the_error_is_in_grade_steps() -> None:
    """Four grades cannot be as far off as forty ranks."""
    graph = scored_graph(40, 12)

    assert outlook(as_grades(graph), 20, seed=0).typical_error < 1.5
    assert outlook(graph, 20, seed=0).typical_error > 1.5


@pytest.mark.parametrize("by_grades", [False, True])
def test_a_sketch_of_a_large_batch_tells_about_the_same(
    monkeypatch: pytest.MonkeyPatch, *, by_grades: bool
) -> None:
    """Beyond some 1,500 essays the covariance is not written out; the outlook still holds."""
    graph = scored_graph(300, 10)
    graph = as_grades(graph) if by_grades else graph
    exact = outlook(graph, 30, seed=0)

    monkeypatch.setattr("cj_pipeline.pairing.posterior._EXACT_UP_TO", 100)
    sketched = outlook(graph, 30, seed=0)

    assert sketched.typical_error == pytest.approx(exact.typical_error, rel=0.15)
    assert sketched.gain_per_comparison == pytest.approx(exact.gain_per_comparison, rel=0.35)

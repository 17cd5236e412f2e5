"""Swapped pairs, on graphs small enough to see what should happen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.arrays import Ints
from cj_pipeline.batch.comparisons import Role
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.position_repair import SwapRules, repair_positions
from cj_pipeline.pairing.positions import in_fair_order

IDS = tuple("abcdefgh")
# One graph, in which a and b were shown first once too often, and c and d second.
PAIRS = "ac bd ce ea df fb ad bc eg gh he"
SHOWN = tuple((pair[0], pair[1]) for pair in PAIRS.split(" "))


def graph_of(*shown: tuple[str, str]) -> ComparisonGraph:
    return ComparisonGraph(IDS, frozenset(), shown)


def wave_of(
    graph: ComparisonGraph, *pairs: str
) -> tuple[list[PairChoice], tuple[tuple[int, int], ...]]:
    chosen = [
        PairChoice(IDS.index(one), IDS.index(other), Role.INFORMATIVE, 0.5) for one, other in pairs
    ]
    ends = [(choice.one, choice.other) for choice in chosen]
    return chosen, in_fair_order(graph, ends, np.random.default_rng(0))


def exchange(graph: ComparisonGraph, least: int = 0, most: int = 3, **gains: float) -> SwapRules:
    """Let essays come this often, and every pair gain what is given, by default 0.1."""
    table = np.full((8, 8), 0.1)
    for (one, other), gain in gains.items():
        table[IDS.index(one), IDS.index(other)] = table[IDS.index(other), IDS.index(one)] = gain
    return SwapRules(np.full(8, least), np.full(8, most), lambda essay: table[essay].copy())


def lean_after(graph: ComparisonGraph, pairs: tuple[tuple[int, int], ...]) -> Ints:
    first, second = np.array(pairs).T
    return graph.imbalance + np.bincount(first, minlength=8) - np.bincount(second, minlength=8)


def test_a_pair_goes_to_an_essay_that_does_not_lean_that_way() -> None:
    """a and b were both shown first too often: first again, either is out of balance by two."""
    graph = graph_of(*SHOWN)
    chosen, pairs = wave_of(graph, "ab")

    repaired, shown = repair_positions(graph, chosen, pairs, exchange(graph, af=0.4, be=0.3))

    assert np.abs(lean_after(graph, pairs)).max() == 2
    assert np.abs(lean_after(graph, shown)).max() == 1
    assert len(repaired) == len(chosen)
    assert {frozenset((c.one, c.other)) for c in repaired} == {frozenset(pair) for pair in shown}


def test_the_pair_that_gains_most_is_asked_instead() -> None:
    """And is kept with the gain it has."""
    graph = graph_of(*SHOWN)
    chosen, pairs = wave_of(graph, "ab")
    stays = IDS[pairs[0][1]]
    gains = {f"{stays}g": 0.2, f"{stays}h": 0.3}

    repaired, shown = repair_positions(graph, chosen, pairs, exchange(graph, **gains))

    assert (repaired[0].expected_gain, repaired[0].role) == (0.3, Role.INFORMATIVE)
    assert [IDS[end] for end in shown[0]] == ["h", stays]


def test_an_essay_that_leans_and_is_not_asked_takes_a_pair_over() -> None:
    """a was shown first twice too often; it is shown second where b would have been."""
    graph = graph_of(*SHOWN, ("a", "f"))
    chosen, pairs = wave_of(graph, "bg")

    repaired, shown = repair_positions(graph, chosen, pairs, exchange(graph))

    assert [[IDS[end] for end in pair] for pair in pairs] == [["g", "b"]]
    assert [[IDS[end] for end in pair] for pair in shown] == [["g", "a"]]
    assert {IDS[repaired[0].one], IDS[repaired[0].other]} == {"a", "g"}
    assert np.abs(lean_after(graph, shown)).max() == 1


@pytest.mark.parametrize("limits", [{"least": 1}, {"most": 0}])
def test_essays_come_as_often_as_they_must_and_may(limits: dict[str, int]) -> None:
    """Evenness of places is not bought with evenness of participation."""
    graph = graph_of(*SHOWN)
    chosen, pairs = wave_of(graph, "ab")

    repaired, shown = repair_positions(graph, chosen, pairs, exchange(graph, **limits))

    assert (repaired, shown) == (chosen, pairs)


def test_no_pair_already_shown_is_asked_instead() -> None:
    """However much it would gain."""
    graph = graph_of(*SHOWN)
    chosen, pairs = wave_of(graph, "ab")

    repaired, _ = repair_positions(
        graph, chosen, pairs, exchange(graph, ac=9.0, ad=9.0, bc=9.0, bd=9.0, bf=9.0)
    )

    judged = {IDS[repaired[0].one], IDS[repaired[0].other]}
    assert tuple(sorted(judged)) not in {tuple(sorted(pair)) for pair in SHOWN}


def test_two_essays_an_earlier_scale_has_placed_never_meet() -> None:
    """Whoever keeps its place in the pair is known; g and h are, and would gain most."""
    graph = replace(graph_of(*SHOWN), known_ids=frozenset("abgh"))
    chosen, pairs = wave_of(graph, "ab")

    repaired, _ = repair_positions(
        graph, chosen, pairs, exchange(graph, ag=9.0, ah=9.0, bg=9.0, bh=9.0)
    )

    assert not {IDS[repaired[0].one], IDS[repaired[0].other]} <= graph.known_ids


def test_while_the_net_is_in_parts_no_bridge_is_taken_away() -> None:
    """Each pair is needed where it is."""
    graph = graph_of(("a", "c"), ("b", "d"))
    chosen, pairs = wave_of(graph, "ab")

    assert np.abs(lean_after(graph, pairs)).max() == 2
    assert repair_positions(graph, chosen, pairs, exchange(graph, af=9.0)) == (chosen, pairs)

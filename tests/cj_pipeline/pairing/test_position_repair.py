"""Pairs handed on, on nets small enough to see what should happen."""

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
# One net, in which a and b were shown first once too often, and c and d second.
PAIRS = "ac bd ce ea df fb ad bc eg gh he"
SHOWN = tuple((pair[0], pair[1]) for pair in PAIRS.split(" "))


def net_of(*shown: tuple[str, str]) -> ComparisonGraph:
    return ComparisonGraph(IDS, frozenset(), shown)


def wave_of(
    net: ComparisonGraph, *pairs: str
) -> tuple[list[PairChoice], tuple[tuple[int, int], ...]]:
    chosen = [
        PairChoice(IDS.index(one), IDS.index(other), Role.INFORMATIVE, 0.5) for one, other in pairs
    ]
    ends = [(choice.one, choice.other) for choice in chosen]
    return chosen, in_fair_order(net, ends, np.random.default_rng(0))


def exchange(net: ComparisonGraph, least: int = 0, most: int = 3, **gains: float) -> SwapRules:
    """Let essays come so often, and every pair gain as told, by default 0.1."""
    table = np.full((8, 8), 0.1)
    for (one, other), gain in gains.items():
        table[IDS.index(one), IDS.index(other)] = table[IDS.index(other), IDS.index(one)] = gain
    return SwapRules(np.full(8, least), np.full(8, most), lambda essay: table[essay].copy())


def lean_after(net: ComparisonGraph, pairs: tuple[tuple[int, int], ...]) -> Ints:
    first, second = np.array(pairs).T
    return net.lean + np.bincount(first, minlength=8) - np.bincount(second, minlength=8)


def test_a_pair_goes_to_an_essay_that_does_not_lean_that_way() -> None:
    """a and b were both shown first too often: whoever comes first again leans by two."""
    net = net_of(*SHOWN)
    chosen, pairs = wave_of(net, "ab")

    handed, shown = repair_positions(net, chosen, pairs, exchange(net, af=0.4, be=0.3))

    assert np.abs(lean_after(net, pairs)).max() == 2
    assert np.abs(lean_after(net, shown)).max() == 1
    assert len(handed) == len(chosen)
    assert {frozenset((c.one, c.other)) for c in handed} == {frozenset(pair) for pair in shown}


def test_the_pair_that_gains_most_is_asked_instead() -> None:
    """And is kept with the gain it has."""
    net = net_of(*SHOWN)
    chosen, pairs = wave_of(net, "ab")
    stays = IDS[pairs[0][1]]
    gains = {f"{stays}g": 0.2, f"{stays}h": 0.3}

    handed, shown = repair_positions(net, chosen, pairs, exchange(net, **gains))

    assert (handed[0].expected_gain, handed[0].role) == (0.3, Role.INFORMATIVE)
    assert [IDS[end] for end in shown[0]] == ["h", stays]


def test_an_essay_that_leans_and_is_not_asked_takes_a_pair_over() -> None:
    """a was shown first twice too often; it is shown second where b would have been."""
    net = net_of(*SHOWN, ("a", "f"))
    chosen, pairs = wave_of(net, "bg")

    handed, shown = repair_positions(net, chosen, pairs, exchange(net))

    assert [[IDS[end] for end in pair] for pair in pairs] == [["g", "b"]]
    assert [[IDS[end] for end in pair] for pair in shown] == [["g", "a"]]
    assert {IDS[handed[0].one], IDS[handed[0].other]} == {"a", "g"}
    assert np.abs(lean_after(net, shown)).max() == 1


@pytest.mark.parametrize("limits", [{"least": 1}, {"most": 0}])
def test_essays_come_as_often_as_they_must_and_may(limits: dict[str, int]) -> None:
    """Evenness of places is not bought with evenness of participation."""
    net = net_of(*SHOWN)
    chosen, pairs = wave_of(net, "ab")

    handed, shown = repair_positions(net, chosen, pairs, exchange(net, **limits))

    assert (handed, shown) == (chosen, pairs)


def test_no_pair_already_shown_is_asked_instead() -> None:
    """However much it would gain."""
    net = net_of(*SHOWN)
    chosen, pairs = wave_of(net, "ab")

    handed, _ = repair_positions(
        net, chosen, pairs, exchange(net, ac=9.0, ad=9.0, bc=9.0, bd=9.0, bf=9.0)
    )

    asked = {IDS[handed[0].one], IDS[handed[0].other]}
    assert tuple(sorted(asked)) not in {tuple(sorted(pair)) for pair in SHOWN}


def test_two_essays_an_earlier_scale_has_placed_never_meet() -> None:
    """Whoever keeps its place in the pair is known; g and h are, and would gain most."""
    net = replace(net_of(*SHOWN), known_ids=frozenset("abgh"))
    chosen, pairs = wave_of(net, "ab")

    handed, _ = repair_positions(net, chosen, pairs, exchange(net, ag=9.0, ah=9.0, bg=9.0, bh=9.0))

    assert not {IDS[handed[0].one], IDS[handed[0].other]} <= net.known_ids


def test_while_the_net_is_in_parts_no_bridge_is_taken_away() -> None:
    """Each pair is needed where it is."""
    net = net_of(("a", "c"), ("b", "d"))
    chosen, pairs = wave_of(net, "ab")

    assert np.abs(lean_after(net, pairs)).max() == 2
    assert repair_positions(net, chosen, pairs, exchange(net, af=9.0)) == (chosen, pairs)

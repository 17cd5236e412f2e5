"""Parts of the graph, and the pairs that would join them."""

from __future__ import annotations

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale.connectivity import bridging_pairs, dominance_labels, net_parts
from cj_pipeline.scale.tallies import as_verdicts, tally


def _judged(*pairs: str) -> list[JudgedPair]:
    return [JudgedPair(pair[0], pair[1], "A") for pair in pairs]


def test_parts_are_listed_largest_first() -> None:
    """The largest part is what the others have to be joined to."""
    assert net_parts(list("abcdef"), _judged("ef", "bc", "ab")) == (
        ("a", "b", "c"),
        ("e", "f"),
        ("d",),
    )


def test_a_batch_nobody_judged_has_as_many_parts_as_essays() -> None:
    """Every essay is a part of its own until it meets another."""
    assert net_parts(["a", "b"], []) == (("a",), ("b",))


def test_bridging_pairs_make_one_net() -> None:
    """Judging just these pairs must be enough."""
    verdicts = _judged("ef", "bc", "ab")
    bridges = bridging_pairs(net_parts(list("abcdef"), verdicts))

    joined = net_parts(list("abcdef"), [*verdicts, *(JudgedPair(a, b, "A") for a, b in bridges)])

    assert len(bridges) == 2
    assert len(joined) == 1


def test_one_net_needs_no_bridge() -> None:
    """Nothing is proposed where nothing is missing."""
    assert bridging_pairs((("a", "b"),)) == ()


def test_essays_that_beat_each_other_in_a_ring_are_one_group() -> None:
    """a beat b, b beat c, c beat a: each has beaten each by a chain."""
    labels = dominance_labels(tally(as_verdicts(list("abc"), _judged("ab", "bc", "ca"))))

    assert len(np.unique(labels)) == 1


def test_essays_in_a_strict_order_are_groups_of_one() -> None:
    """Nothing says how far apart they are."""
    labels = dominance_labels(tally(as_verdicts(list("abc"), _judged("ab", "bc", "ac"))))

    assert len(np.unique(labels)) == 3

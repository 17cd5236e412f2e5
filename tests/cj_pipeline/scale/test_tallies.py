"""Adding verdicts up loses nothing that the likelihood needs."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.scale import tallies
from cj_pipeline.scale.tallies import as_verdicts, tally


def _random_verdicts(weighted: bool) -> tallies.Verdicts:
    rng = np.random.default_rng(0)
    ids = [f"e{i}" for i in range(9)]
    judged = []
    for _ in range(300):
        a, b = rng.choice(9, 2, replace=False)
        winner = ("A", "B", "tie")[rng.integers(3)]
        judged.append(JudgedPair(ids[a], ids[b], winner, f"j{rng.integers(3)}"))  # type: ignore[arg-type]
    return as_verdicts(ids, judged, rng.uniform(0.5, 2, 300) if weighted else None)


def test_a_cell_holds_what_its_verdicts_say() -> None:
    """Two wins, a loss and a tie, one of them shown the other way round."""
    verdicts = as_verdicts(
        ["x", "y"],
        [
            JudgedPair("x", "y", "A"),
            JudgedPair("y", "x", "B"),
            JudgedPair("x", "y", "B"),
            JudgedPair("x", "y", "tie"),
        ],
    )

    cells = tally(verdicts)

    assert (cells.counts.tolist(), cells.wins.tolist(), cells.ties.tolist()) == ([4], [2.5], [1])


def test_orders_and_judges_are_kept_apart_when_asked() -> None:
    """Position effects and discriminations live on that difference."""
    verdicts = as_verdicts(
        ["x", "y"], [JudgedPair("x", "y", "A", "j"), JudgedPair("y", "x", "A", "k")]
    )

    cells = tally(verdicts, by_order=True, by_judge=True)

    assert (cells.first.tolist(), cells.judge.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_counting_and_sorting_give_the_same_cells(
    monkeypatch: pytest.MonkeyPatch, weighted: bool, apart: bool
) -> None:
    """Large graphs are sorted, small ones counted into a table: the result is one."""
    verdicts = _random_verdicts(weighted)
    counted = tally(verdicts, by_order=apart, by_judge=apart)

    monkeypatch.setattr(tallies, "_MAX_TABLE", 0)
    few = verdicts.pick(np.arange(40))
    many_essays = tallies.Verdicts(
        tuple(f"e{i}" for i in range(90)),
        few.judge_ids,
        few.first,
        few.second,
        few.half_wins,
        few.judge,
        few.weights,
    )
    by_sorting = tally(many_essays, by_order=apart, by_judge=apart)
    monkeypatch.undo()
    by_counting = tally(few, by_order=apart, by_judge=apart)

    for name in ("first", "second", "judge", "counts", "wins", "ties"):
        assert getattr(by_sorting, name) == pytest.approx(getattr(by_counting, name))
    assert counted.counts.sum() == pytest.approx(
        300 if verdicts.weights is None else verdicts.weights.sum()
    )


def test_picking_rows_keeps_their_weights() -> None:
    """Bootstraps and drop-one fits must weigh as the whole does."""
    verdicts = _random_verdicts(weighted=True)
    assert verdicts.weights is not None

    assert verdicts.pick(np.array([3, 3])).weights == pytest.approx(verdicts.weights[[3, 3]])

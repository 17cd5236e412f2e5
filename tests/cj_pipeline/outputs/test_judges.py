"""Whose verdicts agree, named for people."""

from __future__ import annotations

from dataclasses import replace

from cj_pipeline.outputs.judges import agreements
from cj_pipeline.queries.history import read_history
from tests.support.finished_batches import SPRING, finished_batches


def test_pairs_asked_once_tell_nothing_and_swapped_ones_tell_of_the_judge() -> None:
    """Every pair of the batch was asked once; three are asked again the other way round."""
    with finished_batches() as db:
        once = read_history(db, SPRING)
    decided = [row for row in once.succeeded if row["winner"] in {"A", "B"}][:3]
    swapped = [
        {**row, "essay_a": row["essay_b"], "essay_b": row["essay_a"], "winner": winner}
        for row, winner in zip(
            decided,
            # The first two verdicts stand; the third is the other way round.
            ["BA"[d["winner"] == "B"] for d in decided[:2]] + [decided[2]["winner"]],
            strict=True,
        )
    ]
    twice = replace(once, comparisons=(*once.comparisons, *swapped))

    (told,) = agreements(twice)

    assert agreements(once) == []
    assert told.who == "quality with itself, order reversed"
    assert (told.share.n, told.share.share) == (3, 2 / 3)

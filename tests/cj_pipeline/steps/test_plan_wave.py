"""What a batch may say about its pairs reaches the wave that is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.operations.preview import Preview, preview_batch
from tests.support.batches import open_engine, write_batch


def preview(tmp_path: Path, **settings: Any) -> Preview:
    folder = write_batch(
        tmp_path / f"class-{len(settings)}",
        n_students=12,
        settings={"judges": ["quality"]} | settings,
    )
    return preview_batch(open_engine(tmp_path / "home"), read_batch(folder))


def test_both_orders_are_planned_one_after_the_other(tmp_path: Path) -> None:
    """Each order is a comparison of its own, with its own row and its own price."""
    wave = preview(tmp_path, both_orders=True, wave_size=12).first_wave

    shown = [(each.essay_a, each.essay_b) for each in wave]
    assert len(shown) == 12
    assert all((b, a) in shown for a, b in shown)


def test_a_rough_order_guides_the_first_pairs(tmp_path: Path) -> None:
    """The weakest pile meets itself before it meets the strongest."""
    names = preview(tmp_path).record.essay_ids
    piles = (names[:6], names[6:])

    wave = preview(tmp_path, rough_order=[list(pile) for pile in piles]).first_wave

    within = [len({each.essay_a, each.essay_b} & set(piles[0])) != 1 for each in wave]
    assert len(within) == 6
    assert all(within)


def test_the_plan_says_when_the_batch_should_be_precise_enough(tmp_path: Path) -> None:
    """Asked for a reliability, one wants to know what it takes before anything is spent."""
    facts = dict(preview(tmp_path, precise={"reliability": 0.8}).facts())

    assert "waves" in str(facts["precise enough after about"])
    assert "precise enough after about" not in dict(preview(tmp_path).facts())

"""What a batch may say about its pairs reaches the wave that is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.errors import BatchProblemsError
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


def test_a_batch_may_say_how_often_it_waits(tmp_path: Path) -> None:
    """Six waves of a provider that takes hours are a day; the plan says what large ones cost."""
    few = preview(tmp_path / "few", waves=2, max_pairwise_comparisons=50)
    many = preview(tmp_path / "many", waves=9, max_pairwise_comparisons=50)

    assert len(few.first_wave) == 25
    assert str(dict(few.facts())["waves at most"]).startswith("2, each of 2.1 times as many")
    assert len(many.first_wave) == 6
    assert dict(many.facts())["waves at most"] == 9


@pytest.mark.parametrize("other", [{"wave_size": 5}, {"all_at_once": True}])
def test_waves_are_sized_in_one_way(tmp_path: Path, other: dict[str, Any]) -> None:
    """Two keys that contradict each other would leave a person guessing which one won."""
    folder = write_batch(tmp_path / "class", n_students=4, settings={"waves": 3} | other)

    with pytest.raises(BatchProblemsError, match="exclude each other"):
        read_batch(folder)

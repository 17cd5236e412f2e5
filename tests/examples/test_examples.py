"""The example batches as they are shipped."""

from __future__ import annotations

import pytest

from cj_pipeline.intake.batch_folder import read_batch
from tests.support import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    ("name", "n_students", "n_anchors"),
    [
        ("uniform-bad", 33, 0),
        ("uniform-good", 34, 0),
        ("school-sport", 27, 0),
        ("graded-english", 42, 18),
        ("lower5", 5, 0),
    ],
)
def test_every_example_can_be_taken_in(name: str, n_students: int, n_anchors: int) -> None:
    """What a newcomer runs first has no problem of its own."""
    batch = read_batch(EXAMPLES / name)

    assert (len(batch.students), len(batch.anchors)) == (n_students, n_anchors)


def test_the_graded_example_has_two_anchors_on_each_step() -> None:
    """Every boundary of the scale then has anchors on both sides."""
    grades = [anchor.grade for anchor in read_batch(EXAMPLES / "graded-english").anchors]

    assert grades == [str(step) for step in range(1, 10) for _ in range(2)]


@pytest.mark.parametrize("name", ["graded-english", "lower5"])
def test_machine_written_examples_say_so(name: str) -> None:
    """Nobody may take their grades for a student's."""
    assert "machine-written" in read_batch(EXAMPLES / name).settings.values.about

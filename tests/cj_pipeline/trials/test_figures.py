"""Expectations as people write them, held against figures."""

from __future__ import annotations

import pytest

from cj_pipeline.queries.history import read_history
from cj_pipeline.trials.figures import FIGURES, Expectation, Figure, trial_figures
from tests.support.finished_batches import SPRING, finished_batches


@pytest.mark.parametrize(
    ("text", "found", "holds"),
    [
        ("completed == 40", 40, True),
        ("completed == 40", 39, False),
        ("largest_positional_skew <= 0.2", 0.2, True),
        ("largest_positional_skew <= 0.2", 0.21, False),
        ("unique_coverage_complete == true", True, True),
        ("end_reason != stalled", "stalled", False),
        ("failed > 0", 0, False),
        ("mean_se < 0.5", None, False),
        ("kendall_tau == null", None, True),
        ("kendall_tau != null", None, False),
    ],
)
def test_an_expectation_holds_or_not(text: str, found: Figure, holds: bool) -> None:
    """A figure that is missing holds nothing, unless its absence is what is expected."""
    expectation = Expectation.read(text)

    assert expectation.finding({expectation.figure: found}).holds is holds


@pytest.mark.parametrize("text", ["completed", "completed = 4", "== 3", "completed == "])
def test_what_states_nothing_is_refused(text: str) -> None:
    """An expectation that could not fail would be worse than none."""
    with pytest.raises(ValueError, match="is no expectation"):
        Expectation.read(text)


def test_only_numbers_are_ordered() -> None:
    """A word is not more than another."""
    with pytest.raises(ValueError, match="only numbers"):
        Expectation.read("end_reason > stable")


@pytest.mark.parametrize("text", ["completed == 40", "state == succeeded", "failed >= 0.5"])
def test_an_expectation_is_written_as_it_was_read(text: str) -> None:
    """It is kept with every run, and read again."""
    assert str(Expectation.read(text)) == text


def test_every_figure_is_worked_out_and_described() -> None:
    """What can be expected can be found, and nothing more."""
    with finished_batches() as db:
        figures = trial_figures(read_history(db, SPRING))

    assert figures.keys() == FIGURES.keys()

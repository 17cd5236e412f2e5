"""Batches side by side: a change is called one only beyond the errors of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cj_pipeline.outputs.side_by_side import (
    batch_figures,
    changes,
    figure_rows,
    render_side_by_side,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import (
    ARGUMENTS,
    BROKEN,
    HOSTILE_TITLE,
    SPRING,
    arguments_rows,
    finished_batches,
    insert_all,
    spring_rows,
)

AGAIN = "spring-9-again"


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        insert_all(db, spring_rows(AGAIN))
        yield {name: read_history(db, name) for name in (SPRING, AGAIN, ARGUMENTS, BROKEN)}


def test_figures_are_those_of_the_batch(histories: dict[str, BatchHistory]) -> None:
    """Counted by hand from how the batch was made."""
    figures = batch_figures(histories[SPRING])

    assert (figures.n_students, figures.n_anchors, figures.n_waves) == (8, 6, 3)
    assert (figures.n_verdicts, figures.n_failed) == (90, 1)
    assert figures.cost_usd == pytest.approx(91 * 0.0025)
    assert sum(figures.grades.values()) == 8
    assert figures.is_simulated


def test_a_batch_without_a_scale_has_no_reliability(histories: dict[str, BatchHistory]) -> None:
    """And says so instead of giving a zero."""
    figures = batch_figures(histories[BROKEN])

    assert figures.reliability is None
    assert dict(figure_rows([figures]))["Reliability among students"] == ["–"]


def test_a_batch_compared_with_itself_has_not_changed(
    histories: dict[str, BatchHistory],
) -> None:
    """Not by a hair."""
    found = changes(histories[SPRING], histories[SPRING])

    assert [essay.change for essay in found.essays] == [0.0] * 14
    assert found.n_beyond_noise == 0
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.same_grade == 1.0
    assert found.spread_ratio == pytest.approx(1.0)


def test_where_the_second_scale_puts_its_zero_changes_nothing(
    histories: dict[str, BatchHistory],
) -> None:
    """Logits have no natural origin."""
    moved = _with_scores(histories[AGAIN], lambda row: row["score"] + 3.0)

    one = changes(histories[SPRING], histories[AGAIN])
    other = changes(histories[SPRING], moved)

    assert [e.change for e in other.essays] == pytest.approx([e.change for e in one.essays])


def test_one_essay_that_rose_far_is_beyond_noise_and_comes_first(
    histories: dict[str, BatchHistory],
) -> None:
    """Ten logits are not put down to errors of one."""
    risen = _with_scores(
        histories[SPRING],
        lambda row: row["score"] + (10.0 if row["essay_id"] == "pupil-03" else 0.0),
    )

    found = changes(histories[SPRING], risen)

    assert found.essays[0].essay_id == "pupil-03"
    assert found.essays[0].is_beyond_noise
    assert found.n_beyond_noise == 1


def test_judging_the_same_essays_anew_is_noise(histories: dict[str, BatchHistory]) -> None:
    """Both batches were drawn from the same qualities."""
    found = changes(histories[SPRING], histories[AGAIN])

    assert len(found.essays) == 14
    assert found.n_beyond_noise == 0
    assert found.rank_correlation is not None
    assert found.rank_correlation > 0.5


def test_no_change_is_called_one_more_often_than_stated() -> None:
    """Of 60 pairs of batches drawn alike, about 3 may show a change; 9 would be too many.

    Nine or more have a chance of 0.4 % if the error rate is the stated 5 %.
    """
    with finished_batches() as db:
        for i in range(12):
            insert_all(db, arguments_rows(f"draw-{i:02d}"))
        drawn = [read_history(db, f"draw-{i:02d}") for i in range(12)]
    pairs = [(one, other) for i, one in enumerate(drawn) for other in drawn[i + 1 :]][:60]

    alarms = sum(changes(one, other).n_beyond_noise > 0 for one, other in pairs)

    assert alarms < 9


def test_essays_are_shared_only_with_the_same_text(histories: dict[str, BatchHistory]) -> None:
    """A second draft under the old name is another essay."""
    redrafted = replace(
        histories[AGAIN],
        essays=tuple(
            {**row, "sha256": "0" * 64} if row["essay_id"] == "pupil-01" else row
            for row in histories[AGAIN].essays
        ),
    )

    found = changes(histories[SPRING], redrafted)

    assert "pupil-01" not in {essay.essay_id for essay in found.essays}
    assert len(found.essays) == 13


def test_batches_that_share_nothing_are_not_compared(
    histories: dict[str, BatchHistory],
) -> None:
    """Their scores have no common zero."""
    found = changes(histories[SPRING], histories[ARGUMENTS])

    assert found.essays == ()
    assert found.rank_correlation is None


def test_the_page_holds_every_batch_and_obeys_none(histories: dict[str, BatchHistory]) -> None:
    """Titles are written by strangers."""
    page = render_side_by_side([histories[SPRING], histories[AGAIN], histories[ARGUMENTS]])

    assert f"From {SPRING} to {AGAIN}" in page
    assert "fewer than 3 essays" in page
    assert HOSTILE_TITLE not in page
    assert "&lt;b&gt;grade nine" in page
    assert "default-src &#39;none&#39;" in page


def _with_scores(history, score):  # type: ignore[no-untyped-def]
    return replace(history, scores=tuple({**row, "score": score(row)} for row in history.scores))


def test_what_change_could_have_been_seen_is_said(histories: dict[str, BatchHistory]) -> None:
    """Nothing seen is not nothing changed."""
    found = changes(histories[SPRING], histories[SPRING])

    assert found.seen_from is not None
    errors = [essay.standard_error for essay in found.essays]
    assert found.seen_from == pytest.approx(3.3 * np.median(errors))
    page = render_side_by_side([histories[SPRING], histories[SPRING]])
    assert f"from about {found.seen_from:.1f} logits" in page

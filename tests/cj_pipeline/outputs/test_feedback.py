"""Feedback on one essay says where it stands and why, from its own side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cj_pipeline.batch.comparisons import Role
from cj_pipeline.errors import UnknownEssayError, UnscalableBatchError
from cj_pipeline.outputs.feedback import (
    ROLES,
    all_feedback,
    essay_feedback,
    roles_of,
    why_requested,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import ARGUMENTS, BROKEN, SPRING, finished_batches


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {name: read_history(db, name) for name in (SPRING, ARGUMENTS, BROKEN)}


@pytest.mark.parametrize("essay_id", ["pupil-01", "pupil-04", "pupil-08", "anchor-03"])
def test_verdicts_add_up_to_the_scores_wins_and_losses(
    histories: dict[str, BatchHistory], essay_id: str
) -> None:
    """A verdict told from the wrong side would swap the two."""
    entry = histories[SPRING].last_score_by_id[essay_id]

    outcomes = [v.outcome for v in essay_feedback(histories[SPRING], essay_id).verdicts]

    assert outcomes.count("won") + outcomes.count("tie") / 2 == entry["n_wins"]
    assert outcomes.count("lost") + outcomes.count("tie") / 2 == entry["n_losses"]


def test_where_it_was_shown_is_counted_as_the_scores_count(
    histories: dict[str, BatchHistory],
) -> None:
    """Essay A is the one shown first, and what the judge's words call it."""
    entry = histories[SPRING].last_score_by_id["pupil-04"]

    shown = [v.shown_as for v in essay_feedback(histories[SPRING], "pupil-04").verdicts]

    assert (shown.count("A"), shown.count("B")) == (
        entry["n_shown_a"],
        entry["n_shown_b"],
    )


def test_it_stands_between_the_anchors_next_to_it(histories: dict[str, BatchHistory]) -> None:
    """In words a student can be told."""
    history = histories[SPRING]
    scores = history.score_by_id

    told = essay_feedback(history, "pupil-05").among_anchors

    below = [a for a in history.anchor_grades if scores[a] <= scores["pupil-05"]]
    nearest = max(below, key=scores.__getitem__)
    assert told.startswith(f"between anchors {nearest} ({history.anchor_grades[nearest]}) and ")


def test_the_interval_is_the_posteriors(histories: dict[str, BatchHistory]) -> None:
    """Right whatever chose the pairs: the verdict-only one by profile likelihood is not."""
    history = histories[ARGUMENTS]
    found = history.posterior()
    place = found.place["text-3"]

    told = essay_feedback(history, "text-3")

    assert (told.lower, told.upper) == pytest.approx((found.lower[place], found.upper[place]))
    assert told.lower < told.score < told.upper
    assert told.verdict_score == pytest.approx(history.fit().scores[place])


def test_before_the_end_the_interval_is_the_normal_one(histories: dict[str, BatchHistory]) -> None:
    """Nothing better is kept yet: 1.96 standard errors to each side."""
    history = replace(histories[ARGUMENTS], ranks=())
    entry = history.last_score_by_id["text-3"]

    told = essay_feedback(history, "text-3")

    assert told.upper - told.lower == pytest.approx(2 * 1.96 * entry["standard_error"])


def test_without_grades_none_is_told(histories: dict[str, BatchHistory]) -> None:
    """Nor between which anchors, where there are none."""
    told = essay_feedback(histories[ARGUMENTS], "text-3")

    assert told.grade is None
    assert told.likely == ()
    assert told.among_anchors == ""


def test_everybody_gets_feedback_in_the_batchs_order(histories: dict[str, BatchHistory]) -> None:
    """The same as one by one."""
    history = histories[SPRING]

    told = all_feedback(history)

    assert [each.essay_id for each in told] == [row["essay_id"] for row in history.essays]
    assert told[3] == essay_feedback(history, "pupil-04")


def test_an_unknown_essay_is_answered_with_the_nearest(
    histories: dict[str, BatchHistory],
) -> None:
    """The name is usually only misspelt."""
    with pytest.raises(UnknownEssayError, match=r"'pupil-4'.*'pupil-04'"):
        essay_feedback(histories[SPRING], "pupil-4")


def test_a_batch_without_scores_says_so(histories: dict[str, BatchHistory]) -> None:
    """There is an essay and nothing to say of it."""
    with pytest.raises(UnscalableBatchError, match="no scores yet"):
        essay_feedback(histories[BROKEN], "essay-1")


def test_every_role_has_its_words() -> None:
    """A role nobody can explain is no reason."""
    assert set(ROLES) == set(Role)


def test_a_gain_comes_with_the_unit_of_the_strategy_that_counted_it() -> None:
    """Squared ranks, squared grade steps and nats cannot be compared."""
    assert why_requested("informative", 3.14159, "adaptive").endswith(
        "expected gain 3.1 squared ranks"
    )
    assert why_requested("boundary", 0.5, "adaptive").endswith("0.5 squared grade steps")
    assert why_requested("informative", 0.125, "hybrid_mst").endswith("0.12 nats")
    assert why_requested("coverage", None, "adaptive") == ROLES["coverage"]


def test_roles_are_counted_with_their_mean_gain_commonest_first() -> None:
    """Pairs without a gain do not pull the mean down."""
    rows = [
        {"role": "coverage", "expected_gain": None},
        {"role": "informative", "expected_gain": 1.0},
        {"role": "informative", "expected_gain": 3.0},
    ]

    first, second = roles_of(rows, "adaptive")

    assert (first.role, first.n, first.mean_gain) == ("informative", 2, "2 squared ranks")
    assert (second.role, second.mean_gain) == ("coverage", "")

"""What the report says of panels, and of what verdicts cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cj_pipeline.outputs.report import render_history
from cj_pipeline.outputs.report_dependence import dependence_sentences, validity
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import SPRING, finished_batches

PANEL = {
    "repeated": {"value": 0.62, "n": 240, "is_estimated": True},
    "between": {"value": 0.57, "n": 100, "is_estimated": True},
    "judge_variance": 0.36,
    "n_judges": 3,
    "per_judge": 1 / 3,
    "n_verdicts": 300,
    "effective_verdicts": 141.0,
    "effective_judges": 1.4,
}


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {SPRING: read_history(db, SPRING)}


def of_panel(history: BatchHistory, **found: object) -> BatchHistory:
    return replace(history, statistics={**history.statistics, "dependence": PANEL, **found})


def test_a_panel_is_told_by_what_it_is_worth(histories: dict[str, BatchHistory]) -> None:
    """Three judges that repeat each other are no three judges, nor repeats verdicts."""
    said = " ".join(dependence_sentences(of_panel(histories[SPRING])))

    assert "3 judges on one pair are worth 1.4 independent ones" in said
    assert "300 verdicts are worth 141" in said
    assert "standard deviation of 0.60 logits" in said
    assert "Errors that all judges share about an essay are in no figure" in said


def test_without_shared_pairs_nothing_is_claimed(histories: dict[str, BatchHistory]) -> None:
    """A panel's worth that nothing shows is not made up."""
    little = PANEL | {"repeated": None, "between": PANEL["between"] | {"is_estimated": False}}  # type: ignore[operator]
    history = of_panel(histories[SPRING], dependence=little)

    assert "worth" not in " ".join(dependence_sentences(history))


def test_precision_stands_beside_validity(histories: dict[str, BatchHistory]) -> None:
    """Which is not known unless people graded or judged some of the essays."""
    history = histories[SPRING]
    found = {"r2": 0.61, "lower": 0.3, "upper": 0.9}
    found |= {"level": -0.4, "level_lower": -0.9, "level_upper": 0.1}

    known = replace(history, statistics={**history.statistics, "validity": found})

    assert validity(history)["value"] == "not known"
    assert "Agreement with people: not known" in render_history(history)
    assert validity(known)["value"] == (
        "0.61 (0.30 to 0.90); level: people's grades lie −0.40 steps from the judges' (−0.90 to"
        " +0.10)"
    )

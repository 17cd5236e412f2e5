"""Plots draw whatever a batch may hold, alike every time, and share nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cj_pipeline.outputs.language import speaking
from cj_pipeline.outputs.plots import (
    agreement_plot,
    convergence_plot,
    cost_plot,
    fairness_plot,
    png,
    score_plot,
    svg,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import ARGUMENTS, SPRING, finished_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL_PLOTS = [score_plot, convergence_plot, fairness_plot, agreement_plot, cost_plot]


@pytest.fixture(scope="module")
def histories() -> Iterator[dict[str, BatchHistory]]:
    with finished_batches() as db:
        yield {name: read_history(db, name) for name in (SPRING, ARGUMENTS)}


@pytest.mark.parametrize("plot", ALL_PLOTS)
def test_a_plot_is_a_png_for_dagster(
    histories: dict[str, BatchHistory], plot: Callable[[BatchHistory], Figure]
) -> None:
    """Dagster shows an image only where the bytes are one."""
    image = png(plot(histories[ARGUMENTS]))

    assert image.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("plot", ALL_PLOTS)
def test_a_batch_before_its_first_wave_gives_an_empty_plot(
    histories: dict[str, BatchHistory], plot: Callable[[BatchHistory], Figure]
) -> None:
    """A batch may end before anything was asked, and its pages are made all the same."""
    nothing: dict[str, tuple[()]] = dict.fromkeys(
        ["pairs", "comparisons", "attempts", "scores", "decisions", "projections", "boundaries"], ()
    )

    image = png(plot(replace(histories[SPRING], **nothing)))

    assert image.startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", ALL_PLOTS)
def test_the_same_batch_gives_the_same_svg(
    histories: dict[str, BatchHistory], plot: Callable[[BatchHistory], Figure]
) -> None:
    """The report's bytes depend on it; matplotlib draws random ids and dates unless told."""
    assert svg(plot(histories[SPRING])) == svg(plot(histories[SPRING]))


def test_the_score_plot_names_grades_and_marks_anchors(
    histories: dict[str, BatchHistory],
) -> None:
    """Without them it would be dots on a line."""
    (axes,) = score_plot(histories[SPRING]).axes

    grades = {text.get_text() for text in axes.texts}
    names = {label.get_text() for label in axes.get_yticklabels()}

    assert {"F", "A"} <= grades
    assert "anchor-06 (A)" in names
    assert "pupil-01" in names


def test_names_of_any_script_stay_text_for_the_readers_fonts(
    histories: dict[str, BatchHistory], recwarn: pytest.WarningsRecorder
) -> None:
    """As outlines of matplotlib's one font they would be boxes; nobody is warned of that."""
    history = histories[SPRING]
    essays = tuple({**row, "name": "李 伟 <b>"} for row in history.essays)

    drawn = svg(score_plot(replace(history, essays=essays))).decode()

    assert "李 伟 &lt;b&gt;" in drawn
    assert not [each for each in recwarn if "Glyph" in str(each.message)]


@pytest.mark.parametrize("plot", ALL_PLOTS)
def test_plots_speak_the_reports_language(
    histories: dict[str, BatchHistory], plot: Callable[[BatchHistory], Figure]
) -> None:
    """Words and decimal commas alike."""
    with speaking("de"):
        said = re.findall(r">([^<>]+)</text>", svg(plot(histories[SPRING])).decode())

    names = {row["essay_id"] for row in histories[SPRING].essays}
    words = [w for each in said if each not in names for w in re.findall(r"[a-zäöüß]{3,}", each)]
    assert words
    assert not {"score", "essay", "student", "wave", "change", "error", "shown"} & set(words)
    assert not [each for each in said if re.fullmatch(r"[−-]?\d+\.\d+", each)]


def test_a_dollar_in_a_grade_is_a_dollar(histories: dict[str, BatchHistory]) -> None:
    """Between two dollars matplotlib would otherwise read a formula, and may fail on it."""
    history = histories[SPRING]
    boundaries = tuple({**row, "above": r"$\frac$"} for row in history.boundaries)

    drawn = svg(score_plot(replace(history, boundaries=boundaries)))

    assert drawn.startswith(b"<?xml")


def test_names_are_left_out_where_they_would_run_into_each_other(
    histories: dict[str, BatchHistory],
) -> None:
    """Three hundred names on one page are a grey bar."""
    history = histories[ARGUMENTS]
    essays = tuple({**history.essays[0], "essay_id": f"text-{i}"} for i in range(300))
    scores = tuple({**history.scores[-1], "essay_id": f"text-{i}"} for i in range(300))

    (axes,) = score_plot(replace(history, essays=essays, scores=scores)).axes

    assert list(axes.get_yticks()) == []


def test_drawing_leaves_no_global_state(histories: dict[str, BatchHistory]) -> None:
    """Dagster runs assets in threads; pyplot's current figure would be everybody's."""
    import matplotlib

    before = dict(matplotlib.rcParams)

    svg(score_plot(histories[SPRING]))

    assert dict(matplotlib.rcParams) == before


def test_importing_plots_does_not_load_matplotlib() -> None:
    """Dagster's code location imports this; matplotlib takes a second."""
    code = "import sys, cj_pipeline.outputs.plots; print('matplotlib' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"

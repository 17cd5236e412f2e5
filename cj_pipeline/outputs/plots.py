"""Pictures of a batch: where its essays lie, how it settled, whether it was fair, what it cost.

Each function makes one matplotlib figure of its own (no pyplot, so nothing is shared between
threads); `png` is for Dagster's pages, `svg` for the report. What a plot says in colour it says
in shape too. Every text is drawn as it is: `$` in a grade's name starts no formula.
"""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.diagnostics.position_balance import first_shown_share, positional_skews
from cj_pipeline.outputs.judges import agreements
from cj_pipeline.outputs.language import has_decimal_comma, plain, tr, whole
from cj_pipeline.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    from cj_pipeline.queries.history import BatchHistory

# Okabe and Ito's colours, dark enough on white for text: students, anchors, and the rest.
_STUDENT = "#0b5394"
_ANCHOR = "#b34700"
_QUIET = "#5f6b76"

_N_COLOURS = 32
"""Lines and letters need no more, smoothed edges included."""

_MAX_NAMED_ESSAYS = 70
"""Beyond this many essays the names would run into each other; the report's table has them."""


def png(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return the figure as a PNG image of few colours, a quarter as large as one of all."""
    from PIL import Image

    drawn, content = io.BytesIO(), io.BytesIO()
    with _no_word_of_glyphs():
        figure.savefig(drawn, format="png", dpi=dpi)
    picture = Image.open(drawn).convert("RGB").quantize(_N_COLOURS, dither=Image.Dither.NONE)
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def svg(figure: Figure) -> bytes:
    """Return the figure as an SVG image; the same figure gives the same bytes.

    Names stay text, so that the reader's own fonts draw letters that matplotlib's font lacks.
    """
    import matplotlib

    content = io.BytesIO()
    style = matplotlib.rc_context({"svg.hashsalt": "cj", "svg.fonttype": "none"})
    with style, _no_word_of_glyphs():
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


@contextmanager
def _no_word_of_glyphs() -> Iterator[None]:
    """Say nothing of letters that matplotlib's font lacks: nobody at a terminal can help it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def score_plot(history: BatchHistory) -> Figure:
    """Return every essay's score with its 95 % interval, anchors marked, grades behind.

    Each boundary between grades carries its own standard error as a bar at the top.
    """
    rows = history.last_scores[::-1]
    n = len(rows)
    names_fit = n <= _MAX_NAMED_ESSAYS
    figure, (axes,) = _figure(height=min(1.6 + 0.21 * n, 15.0) if names_fit else 9.0)
    scores = np.array([row["score"] for row in rows])
    limits = np.array([history.score_interval(row["essay_id"]) for row in rows]).reshape(-1, 2)
    errors = np.abs(limits.T - scores)
    is_anchor = np.array(
        [history.essay_by_id[row["essay_id"]]["is_anchor"] for row in rows], dtype=bool
    )
    places = np.arange(n)
    for chosen, colour, marker, label in (
        (~is_anchor, _STUDENT, "o", tr("student's essay")),
        (is_anchor, _ANCHOR, "D", tr("anchor")),
    ):
        if chosen.any():
            axes.errorbar(
                scores[chosen],
                places[chosen],
                xerr=errors[:, chosen],
                fmt=marker,
                color=colour,
                markersize=4.5 if names_fit else 2.0,
                elinewidth=1.1 if names_fit else 0.5,
                label=label,
            )
    axes.set_ylim(-0.8, n - 0.2)
    axes.margins(x=0.03)
    axes.autoscale_view(scaley=False)
    _draw_boundaries(axes, history)
    if names_fit:
        axes.set_yticks(places, [_essay_label(history, row["essay_id"]) for row in rows])
        axes.tick_params(axis="y", labelsize=8, length=0)
    else:
        axes.set_yticks([])
        axes.set_ylabel(tr("{n} essays, highest score on top", n=whole(n)))
    axes.set_xlabel(tr("score in logits, with 95 % interval"))
    if rows:
        axes.legend(loc="lower right", frameon=True, fontsize=8)
    return figure


def convergence_plot(history: BatchHistory) -> Figure:
    """Return how scores settled: change per wave, mean standard error, and reliability."""
    from matplotlib.ticker import MaxNLocator

    figure, (change, error, reliability) = _figure(height=6.4, n_rows=3)
    decided = history.decisions
    changes = [
        (row.completed, row.max_score_change) for row in decided if row.max_score_change is not None
    ]
    change.plot(*_columns(changes), color=_STUDENT, marker="o", markersize=4)
    threshold = history.settings.get("score_stability_threshold")
    if threshold is not None:
        change.axhline(threshold, color=_ANCHOR, linestyle="--", linewidth=1)
        change.annotate(
            tr("stable at {threshold}", threshold=plain(threshold)),
            (1, threshold),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=_ANCHOR,
        )
    change.set_ylabel(tr("largest change\nof a score"))
    change.set_ylim(bottom=0)
    errors = [
        (row.completed, row.details["bt_se_summary"]["mean_se"])
        for row in decided
        if "bt_se_summary" in row.details
    ]
    error.plot(*_columns(errors), color=_STUDENT, marker="o", markersize=4)
    error.set_ylabel(tr("mean standard\nerror"))
    error.set_ylim(bottom=0)
    for key, name, colour, marker in (
        ("empirical_bayes_reliability", tr("empirical Bayes"), _STUDENT, "o"),
        ("scale_separation_reliability", tr("scale separation"), _ANCHOR, "D"),
    ):
        points = [(row.completed, row.details[key]) for row in decided if key in row.details]
        if points:
            reliability.plot(
                *_columns(points), color=colour, marker=marker, markersize=4, label=name
            )
    reliability.set_ylim(0, 1.02)
    reliability.set_ylabel(tr("reliability"))
    if reliability.lines:
        reliability.legend(loc="lower right", fontsize=8)
    reliability.set_xlabel(tr("comparisons with a verdict"))
    reliability.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (change, error):
        axes.sharex(reliability)
        axes.tick_params(labelbottom=False)
    return figure


def fairness_plot(history: BatchHistory) -> Figure:
    """Return how evenly essays were shown first, and how often the first shown won per wave."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure, (skew, share) = _figure(height=3.2, n_columns=2)
    skews = list(positional_skews(history.comparisons).values())
    skew.hist(skews, bins=np.linspace(0, 1, 21).tolist(), color=_STUDENT)
    skew.set_xlabel(tr("skew |A − B| / (A + B) of an essay"))
    skew.set_ylabel(tr("essays"))
    skew.yaxis.set_major_locator(MaxNLocator(integer=True))
    by_wave = defaultdict(list)
    for row in history.succeeded:
        by_wave[row["wave"]].append(row)
    waves = sorted(by_wave)
    shares = [first_shown_share(by_wave[wave]) for wave in waves]
    middle = np.array([s.share for s in shares])
    share.axhline(0.5, color=_QUIET, linewidth=1, linestyle="--")
    share.errorbar(
        waves,
        middle,
        yerr=[
            np.clip(middle - [s.lower for s in shares], 0, None),
            np.clip(np.array([s.upper for s in shares]) - middle, 0, None),
        ],
        fmt="o",
        color=_STUDENT,
        markersize=4,
    )
    share.set_ylim(0, 1)
    share.set_xlim(0.5, max(waves, default=1) + 0.5)
    share.yaxis.set_major_formatter(PercentFormatter(1, symbol="\u00a0%"))
    share.xaxis.set_major_locator(MaxNLocator(integer=True))
    share.set_xlabel(tr("wave"))
    share.set_ylabel(tr("first shown won"))
    return figure


def cost_plot(history: BatchHistory) -> Figure:
    """Return what each wave cost, and all of them together."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure(height=3.0)
    costs: dict[int, float] = defaultdict(float)
    for row in history.attempts:
        costs[row["wave"]] += row["cost_usd"] or 0.0
    waves = sorted(costs)
    usd = [costs[wave] for wave in waves]
    axes.bar(waves, usd, color=_STUDENT, width=0.7, label=tr("this wave"))
    axes.plot(
        waves, np.cumsum(usd), color=_ANCHOR, marker="D", markersize=4, label=tr("all waves so far")
    )
    axes.set_ylim(bottom=0)
    axes.set_xlim(0.5, max(waves, default=1) + 0.5)
    axes.set_xlabel(tr("wave"))
    axes.set_ylabel("USD")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", fontsize=8)
    return figure


def agreement_plot(history: BatchHistory) -> Figure:
    """Return how often verdicts on one pair agree, each share with its 95 % interval."""
    from matplotlib.ticker import PercentFormatter

    found = agreements(history)[:_MAX_NAMED_ESSAYS][::-1]
    figure, (axes,) = _figure(height=min(1.3 + 0.3 * max(1, len(found)), 15.0))
    shares = [each.share for each in found]
    middle = np.array([share.share for share in shares])
    axes.axvline(0.5, color=_QUIET, linewidth=1, linestyle="--")
    axes.errorbar(
        middle,
        np.arange(len(found)),
        xerr=[
            np.clip(middle - [share.lower for share in shares], 0, None),
            np.clip(np.array([share.upper for share in shares]) - middle, 0, None),
        ],
        fmt="o",
        color=_STUDENT,
        markersize=4.5,
    )
    names = [_literal(f"{each.who} ({each.share.n})") for each in found]
    axes.set_yticks(np.arange(len(found)), names)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_ylim(-0.7, max(1, len(found)) - 0.3)
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol="\u00a0%"))
    axes.set_xlabel(
        tr("pairs with the same verdict, of (n) compared")
        if found
        else tr("no pair was judged twice")
    )
    return figure


def _figure(*, height: float, n_rows: int = 1, n_columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure 8 inches wide and its axes, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid: list[Axes] = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="both", color="#e8ebee", linewidth=0.6)
        axes.set_axisbelow(True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_tick_labels(comma=has_decimal_comma()))
    return figure, grid


def _tick_labels(*, comma: bool) -> ScalarFormatter:
    """Return what writes the numbers along an axis, with a comma for the point where wanted."""
    from matplotlib.ticker import ScalarFormatter

    class Localised(ScalarFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            written = super().__call__(x, pos)
            return written.replace(".", ",") if comma else written

    return Localised()


def _draw_boundaries(axes: Axes, history: BatchHistory) -> None:
    boundaries = history.boundaries
    if not boundaries:
        return
    left, right = axes.get_xlim()
    positions = [row["boundary"] for row in boundaries]
    for position in positions:
        axes.axvline(position, color=_QUIET, linewidth=0.9, linestyle=":", zorder=1)
    # Bands over the whole height would run into one grey block where boundaries are close. Bars
    # in two alternating rows above the essays stay apart.
    bottom, top = axes.get_ylim()
    axes.set_ylim(top=top + 0.07 * (top - bottom))
    axes.errorbar(
        positions,
        [0.96 + 0.022 * (i % 2) for i in range(len(positions))],
        xerr=[row["standard_error"] for row in boundaries],
        fmt="|",
        color=_QUIET,
        elinewidth=1.4,
        transform=axes.get_xaxis_transform(),
        label=tr("boundary, ± 1 standard error"),
    )
    axes.set_xlim(left, right)
    edges = np.clip([left, *(row["boundary"] for row in boundaries), right], left, right)
    grades = [boundaries[0]["below"], *(row["above"] for row in boundaries)]
    last = -np.inf
    for grade, low, high in zip(grades, edges[:-1], edges[1:], strict=True):
        middle = (low + high) / 2
        # A grade without room for its name is left to the report's table.
        if high > low and middle - last > 0.035 * (right - left):
            axes.annotate(
                _literal(grade),
                (middle, 1.005),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=9,
                fontweight="bold",
                color=_QUIET,
            )
            last = middle


def _essay_label(history: BatchHistory, essay_id: str) -> str:
    grade = history.essay_by_id[essay_id]["grade"]
    name = visible(history.label(essay_id))
    name = name if len(name) <= 28 else f"{name[:27]}…"
    return _literal(name if grade is None else f"{name} ({grade})")


def _literal(text: str) -> str:
    return text.replace("$", r"\$")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]

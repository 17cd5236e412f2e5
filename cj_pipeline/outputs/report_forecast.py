"""What the report, the UI and the terminal say of how far a batch still has to go.

The figures were worked out when each wave was decided and are kept with the decision; here they
only become sentences.
"""

from __future__ import annotations

from typing import Any

from cj_pipeline.batch.options import Goal, goal_of
from cj_pipeline.outputs.language import number, percent, plain, to_translate, tr
from cj_pipeline.queries.history import BatchHistory, WaveDecision

_TARGETS = {
    "reliability": to_translate("reliability at least {value}"),
    "mean_standard_error": to_translate("mean standard error at most {value}"),
    "max_standard_error": to_translate("largest standard error at most {value}"),
    "misgrading": to_translate("at most {value} expected to be graded wrongly"),
    "misplaced": to_translate("at most {value} expected to be misplaced"),
    "gain_per_usd": to_translate("a dollar gaining at most {value}"),
}


def describe_targets(history: BatchHistory) -> str:
    """Return the batch's targets; empty where it sets no target."""
    rule: dict[str, float | None] = history.settings.get("precise") or {}
    return ", ".join(
        tr(
            _TARGETS[key],
            value=percent(value) if key in {"misgrading", "misplaced"} else plain(value),
        )
        for key, value in rule.items()
        if value is not None
    )


def describe_forecasts(history: BatchHistory) -> list[dict[str, Any]]:
    """Return the forecast made after each wave: `wave`, `so_far` and its `text`."""
    return [
        {"wave": row.wave, "so_far": row.completed, "text": text}
        for row in history.decisions
        if (text := _forecast(row))
    ]


def describe_outlook(history: BatchHistory) -> str:
    """Return how far off ranks or grades are after the last wave; empty where it is not known."""
    details = history.last_details
    goal = goal_of(history.settings.get("goal") or "ranking")
    if goal.is_one_cut:
        return _side_of_cut(goal, details.get("precision", {}).get("misplaced"))
    ahead = details.get("outlook")
    if not ahead:
        return ""
    unit = tr("grade steps") if goal.kind == "grades" else tr("ranks")
    text = tr(
        "By the last scores an essay is typically {error} {unit} off; {n} more comparisons, well"
        " chosen, should make that {after}.",
        error=number(ahead["typical_error"], 1),
        unit=unit,
        n=ahead["n_comparisons"],
        after=number(ahead["after_wave"], 1),
    )
    precision = details.get("precision", {})
    if precision.get("gain_per_usd") is not None:
        gain = plain(float(f"{precision['gain_per_usd']:.2g}"))
        text += " " + tr("That is {gain} {unit} for a dollar.", gain=gain, unit=unit)
    if precision.get("misgrading") is not None:
        text += " " + tr(
            "{share} of the students may be graded wrongly.",
            share=percent(precision["misgrading"]),
        )
    return text


def _side_of_cut(goal: Goal, misplaced: float | None) -> str:
    if misplaced is None:
        return ""
    best = tr("the best {share}", share=percent(goal.share)) if goal.share is not None else ""
    if goal.kind == "top":
        named = tr("the {n} best", n=goal.count) if goal.count is not None else best
        return tr(
            "{share} of those named as {named} may not be among them.",
            share=percent(misplaced),
            named=named,
        )
    return tr(
        "{share} of the students may be on the wrong side of the cut ({cut}).",
        share=percent(misplaced),
        cut=best or tr("{grade} or better", grade=goal.grade),
    )


def forecast_metadata(history: BatchHistory) -> dict[str, Any]:
    """Return what the page of a decision shows of the forecast and the outlook."""
    shown: dict[str, Any] = {}
    if targets := describe_targets(history):
        shown["precise_means"] = targets
    forecasts = describe_forecasts(history)
    if forecasts and history.decisions and forecasts[-1]["wave"] == history.decisions[-1].wave:
        shown["forecast"] = forecasts[-1]["text"]
        stored = history.last_details["forecast"]
        shown["forecast_comparisons"] = stored["total"]
        shown["forecast_waves"] = stored["waves"]
        if stored["usd"] is not None:
            shown["forecast_usd"] = stored["usd"]
    if text := describe_outlook(history):
        shown["outlook"] = text
    return shown


def _forecast(decided: WaveDecision) -> str:
    stored = decided.details.get("forecast")
    if not stored:
        return ""
    from cj_pipeline.stopping.forecast import Forecast

    return Forecast(**stored).in_words(decided.completion_denominator)

"""What the report, the UI and the terminal say of how far a batch still has to go.

The figures were worked out when each wave was decided and are kept with the decision; here they
only become sentences.
"""

from __future__ import annotations

from typing import Any

from cj_pipeline.batch.options import Goal, goal_of
from cj_pipeline.queries.history import BatchHistory, WaveDecision

_TARGETS = {
    "reliability": "reliability at least {:g}",
    "mean_standard_error": "mean standard error at most {:g}",
    "max_standard_error": "largest standard error at most {:g}",
    "misgrading": "at most {:.0%} expected to be graded wrongly",
    "misplaced": "at most {:.0%} expected to be misplaced",
    "gain_per_usd": "a dollar gaining at most {:g}",
}


def describe_targets(history: BatchHistory) -> str:
    """Return the batch's targets; empty where it sets no target."""
    rule: dict[str, float | None] = history.settings.get("precise") or {}
    return ", ".join(
        _TARGETS[key].format(value) for key, value in rule.items() if value is not None
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
    unit = "grade steps" if goal.kind == "grades" else "ranks"
    text = (
        f"By the last scores an essay is typically {ahead['typical_error']:.1f} {unit} off;"
        f" {ahead['n_comparisons']} more comparisons, well chosen, should make that"
        f" {ahead['after_wave']:.1f}."
    )
    precision = details.get("precision", {})
    if precision.get("gain_per_usd") is not None:
        text += f" That is {precision['gain_per_usd']:.2g} {unit} for a dollar."
    if precision.get("misgrading") is not None:
        text += f" {precision['misgrading']:.0%} of the students may be graded wrongly."
    return text


def _side_of_cut(goal: Goal, misplaced: float | None) -> str:
    if misplaced is None:
        return ""
    if goal.kind == "top":
        named = f"the {goal.count} best" if goal.count is not None else f"the best {goal.share:.0%}"
        return f"{misplaced:.0%} of those named as {named} may not be among them."
    cut = f"the best {goal.share:.0%}" if goal.share is not None else f"{goal.grade} or better"
    return f"{misplaced:.0%} of the students may be on the wrong side of the cut ({cut})."


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

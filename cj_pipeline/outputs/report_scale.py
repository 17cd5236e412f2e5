"""What the report says of the scale as a whole: its figures by name, each with what it means.

The figures are `scale_statistics`; a batch that has not ended has only those of its last wave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.outputs.html import percent, signed
from cj_pipeline.outputs.report_dependence import validity
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.queries.history import BatchHistory
from cj_pipeline.scale.certainty import FEWEST_FOR_A_FIGURE

_SHARED_CHOICE = (
    "Pairs were chosen by score, and both halves share what that choice fed upon, so this is too"
    " high: do not quote it. "
)


def headline_reliability(history: BatchHistory) -> str:
    """Return the reliability among students in words; empty where none is known.

    For few students there is no single figure, and where students cannot be told apart that is
    said instead of one.
    """
    details = history.last_details
    found = details.get("student_reliability")
    if found is None:  # decided by an earlier version, which counted anchors as students
        value = details.get("empirical_bayes_reliability")
        return "" if value is None else f"{value:.2f} (anchors counted as students)"
    if found["value"] is None:
        return ""
    limits = f"{found['lower']:.2f} to {found['upper']:.2f}"
    if details.get("students_cannot_be_told_apart"):
        return f"students cannot be told apart ({limits})"
    if "empirical_bayes_reliability" not in details:
        return f"between {limits.replace(' to ', ' and ')}"
    return f"{details['empirical_bayes_reliability']:.2f} ({limits})"


def _few_students(history: BatchHistory) -> str:
    found = history.last_details.get("student_reliability")
    if found is None or found["n_students"] >= FEWEST_FOR_A_FIGURE:
        return ""
    return f" {found['n_students']} essays carry no single figure: only the limits say anything."


def reliability_rows(history: BatchHistory) -> list[dict[str, str]]:
    """Return each figure's name, value and meaning, the honest headline first."""
    found, details = history.statistics, history.last_details
    rows: list[dict[str, str]] = []
    strategy = history.settings.get("strategy")
    by_score = strategy is not None and strategy_named(strategy).needs_scores

    def row(name: str, value: str, meaning: str) -> None:
        rows.append({"name": name, "value": value, "meaning": meaning})

    if headline := headline_reliability(history):
        row(
            "Reliability among students",
            headline,
            "The headline: the share of the differences between the students' scores that is real,"
            " with the limits between which it lies with 95 % probability. Anchors are no part of"
            f" it, and it stays low where students hardly differ.{_few_students(history)}",
        )
    with_anchors = details.get("reliability_with_anchors")
    if with_anchors is not None:
        row(
            "The same with anchors counted as students",
            f"{with_anchors:.2f}",
            "Anchors lie further apart than students do, which alone makes this figure larger.",
        )
    if rows:
        rows.append({"name": "Agreement with people", **validity(history)})
    if found.get("separation_index") is not None:
        row(
            "Separation index",
            f"{found['separation_index']:.2f}",
            "The same as a ratio: how many standard errors the essays' true spread is.",
        )
    for by, whose in (("comparisons", "as many verdicts again"), ("judges", "other judges")):
        halves = found.get(f"split_half_by_{by}")
        if halves is not None:
            row(
                f"Split-half correlation, by {by}{', too high here' * by_score}",
                f"{halves['median']:.2f} ({halves['lower']:.2f} to {halves['upper']:.2f})",
                f"{_SHARED_CHOICE * by_score}Scores from one random half of the {by} against those"
                f" from the other, over {halves['n_splits']} splits (middle 95 %): what {whose}"
                f" would change. Stepped up to all of them: {halves['stepped_up']:.2f}.",
            )
    if "scale_separation_reliability" in details:
        row(
            "Scale separation reliability, full covariance",
            f"{details['scale_separation_reliability']:.2f}",
            "1 - mean squared error / variance of scores. Too high when pairs were chosen"
            " adaptively.",
        )
    if found.get("epsilon_adjusted_reliability") is not None:
        row(
            "Scale separation reliability as R's sirt::btm gives it",
            f"{found['epsilon_adjusted_reliability']:.2f}",
            "The figure behind most published ones: epsilon-adjusted scores, errors as if all other"
            " scores were known. For comparison with papers; too high with adaptive pairs as well.",
        )
    triples = found.get("transitivity")
    if triples is not None:
        row(
            "Circular triples",
            percent(triples["share"]),
            f"Of {triples['n_triples']:,} triples of essays all judged against each other: a beat"
            " b, b beat c, c beat a. A quarter would be circular if winners were tossed for.",
        )
    effective = found.get("effective_comparisons")
    if effective is not None:
        row(
            "Effective comparisons per essay",
            f"{effective['mean']:.1f} of {effective['given_mean']:.1f}",
            "How many verdicts between equals would carry as much information; the least of any "
            f"essay: {effective['least']:.1f}.",
        )
    return rows


def position_rows(history: BatchHistory) -> list[str]:
    """Return in sentences the effect of being shown first on each judge, by the model."""
    sentences = []
    for judge_id, effect in history.statistics.get("position_effects", {}).items():
        name = history.judge_by_id[judge_id]["name"]
        held = effect["lower"] <= 0 <= effect["upper"]
        sentences.append(
            f"To {name}, being shown first is worth {signed(effect['value'])} logits (95 % interval"
            f" {signed(effect['lower'])} to {signed(effect['upper'])})"
            + (": nothing measurable." if held else ". The scores have it taken out.")
        )
    return sentences


def judge_rows(history: BatchHistory) -> list[dict[str, str]]:
    """Return per judge its consistency, its fit, and what leaving it out would change."""
    found = history.statistics
    rows = []
    for judge_id, judge in found.get("judges", {}).items():
        alone = found.get("panel", {}).get(judge_id, {})
        strength = found.get("log_discriminations", {}).get(judge_id)
        rows.append(
            {
                "name": history.judge_by_id[judge_id]["name"],
                "swap": _share(judge["swap_agreement"]),
                "repeat": _share(judge["repeat_agreement"]),
                "infit": f"{judge['infit']:.2f}",
                "outfit": f"{judge['outfit']:.2f}",
                "discrimination": _ratio(strength),
                "agreement": _number(alone.get("agreement_with_the_others"), 2),
                "without": _number(alone.get("largest_rank_change_without"), 0),
            }
        )
    return rows


def _share(share: dict[str, Any]) -> str:
    if share["share"] is None:
        return "–"
    limits = f"{percent(share['lower'])} to {percent(share['upper'])}"
    return f"{percent(share['share'])} of {share['n']} ({limits})"


def _ratio(estimate: dict[str, float] | None) -> str:
    """Return a log discrimination as a factor."""
    if estimate is None:
        return "–"
    from math import exp

    low, high = exp(estimate["lower"]), exp(estimate["upper"])
    return f"{exp(estimate['value']):.2f} ({low:.2f} to {high:.2f})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def anchor_sentences(history: BatchHistory) -> list[str]:
    """Return in sentences what the anchors say about themselves; none without a check."""
    check = history.grading["anchor_check"] if history.grading is not None else {}
    return list(_sentences(check)) if check else []


def anchor_fits(history: BatchHistory) -> dict[str, Mapping[str, Any]]:
    """Return each anchor's own part of the check under its id, infit and outfit among it."""
    check = history.grading["anchor_check"] if history.grading is not None else {}
    return {row["essay_id"]: row for row in check.get("anchors", ())}


def _sentences(check: Mapping[str, Any]) -> Iterator[str]:
    if check["exact"] is not None:
        yield (
            f"Graded by the others, {percent(check['exact'])} of {check['n_anchors']} anchors get"
            f" their known grade and {percent(check['within_one'])} are at most one step off; they"
            f" are off by {check['mean_absolute_error']:.1f} steps on average, and come out"
            f" {signed(check['bias'])} steps above their grades (0 is no bias)."
        )
    if check["kendall_tau"] is not None:
        limits = (
            f" (95 % interval {check['tau_lower']:.2f} to {check['tau_upper']:.2f})"
            if check["tau_lower"] is not None
            else ""
        )
        yield (
            f"Scores follow known grades with Kendall's tau {check['kendall_tau']:.2f}{limits}; 1"
            " is the same order."
        )
    if check["disagreement"] is not None:
        yield (
            "What the anchors' graders saw and what the judge saw differ by about"
            f" {check['disagreement']:.1f} steps; graders among themselves by about half a step."
        )
    if check["n_direct"]:
        yield (
            f"Of {check['n_direct']} verdicts between anchors of different grades,"
            f" {check['n_direct_inversions']} went to the one with the lower grade."
        )
    for row in check["inversions"]:
        if row["is_beyond_error"]:
            yield (
                f"{row['lower']} has the lower grade and yet scores {row['excess']:.2f} logits"
                f" above {row['higher']}, more than the errors of their scores explain: check "
                "both."
            )
    if check["zero_win_anchors"]:
        names = ", ".join(check["zero_win_anchors"])
        yield f"Won nothing although others are graded lower: {names}."

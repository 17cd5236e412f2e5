"""What the report says of the scale as a whole: its figures by name, each with what it means.

The figures are `scale_statistics`; a batch that has not ended has only those of its last wave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.grading.anchors import TOO_SURE
from cj_pipeline.grading.disagreement import ExpectedDisagreement
from cj_pipeline.outputs.language import number, percent, signed, to_translate, tr, whole
from cj_pipeline.outputs.report_dependence import validity
from cj_pipeline.pairing.strategies import strategy_named
from cj_pipeline.queries.history import BatchHistory
from cj_pipeline.scale.certainty import FEWEST_FOR_A_FIGURE


def headline_reliability(history: BatchHistory) -> str:
    """Return the reliability among students in words; empty where none is known.

    For few students there is no single figure, and where students cannot be told apart that is
    said instead of one.
    """
    details = history.last_details
    found = details.get("student_reliability")
    if found is None:  # decided by an earlier version, which counted anchors as students
        value = details.get("empirical_bayes_reliability")
        return (
            ""
            if value is None
            else tr("{value} (anchors counted as students)", value=number(value))
        )
    if found["value"] is None:
        return ""
    limits = {"lower": number(found["lower"]), "upper": number(found["upper"])}
    if details.get("students_cannot_be_told_apart"):
        return tr("students cannot be told apart ({lower} to {upper})", **limits)
    if "empirical_bayes_reliability" not in details:
        return tr("between {lower} and {upper}", **limits)
    value = number(details["empirical_bayes_reliability"])
    return tr("{value} ({lower} to {upper})", value=value, **limits)


def _few_students(history: BatchHistory) -> str:
    found = history.last_details.get("student_reliability")
    if found is None or found["n_students"] >= FEWEST_FOR_A_FIGURE:
        return ""
    return " " + tr(
        "{n} essays carry no single figure: only the limits say anything.", n=found["n_students"]
    )


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
            tr("Reliability among students"),
            headline,
            tr(
                "The headline: the share of the differences between the students' scores that is"
                " real, with the limits between which it lies with 95 % probability. Anchors are no"
                " part of it, and it stays low where students hardly differ."
            )
            + _few_students(history),
        )
    with_anchors = details.get("reliability_with_anchors")
    if with_anchors is not None:
        row(
            tr("The same with anchors counted as students"),
            number(with_anchors),
            tr("Anchors lie further apart than students do, which alone makes this figure larger."),
        )
    if rows:
        rows.append({"name": tr("Agreement with people"), **validity(history)})
    if found.get("separation_index") is not None:
        row(
            tr("Separation index"),
            number(found["separation_index"]),
            tr("The same as a ratio: how many standard errors the essays' true spread is."),
        )
    rows += _split_half_rows(found, by_score=by_score)
    if "scale_separation_reliability" in details:
        row(
            tr("Scale separation reliability, full covariance"),
            number(details["scale_separation_reliability"]),
            tr(
                "1 - mean squared error / variance of scores. Too high when pairs were chosen"
                " adaptively."
            ),
        )
    if found.get("epsilon_adjusted_reliability") is not None:
        row(
            tr("Scale separation reliability as R's sirt::btm gives it"),
            number(found["epsilon_adjusted_reliability"]),
            tr(
                "The figure behind most published ones: epsilon-adjusted scores, errors as if all"
                " other scores were known. For comparison with papers; too high with adaptive pairs"
                " as well."
            ),
        )
    triples = found.get("transitivity")
    if triples is not None:
        row(
            tr("Circular triples"),
            percent(triples["share"]),
            tr(
                "Of {n} triples of essays all judged against each other: a beat b, b beat c, c beat"
                " a. A quarter would be circular if winners were tossed for.",
                n=whole(triples["n_triples"]),
            ),
        )
    effective = found.get("effective_comparisons")
    if effective is not None:
        row(
            tr("Effective comparisons per essay"),
            tr(
                "{n} of {all}",
                n=number(effective["mean"], 1),
                all=number(effective["given_mean"], 1),
            ),
            tr(
                "How many verdicts between equals would carry as much information; the least of any"
                " essay: {least}.",
                least=number(effective["least"], 1),
            ),
        )
    return rows


_HALVES = {
    "comparisons": (
        to_translate("Split-half correlation, by comparisons"),
        to_translate(
            "Scores from one random half of the comparisons against those from the other, over {n}"
            " splits (middle 95 %): what as many verdicts again would change. Stepped up to all of"
            " them: {stepped_up}."
        ),
    ),
    "judges": (
        to_translate("Split-half correlation, by judges"),
        to_translate(
            "Scores from one random half of the judges against those from the other, over {n}"
            " splits (middle 95 %): what other judges would change. Stepped up to all of them:"
            " {stepped_up}."
        ),
    ),
}


def _split_half_rows(found: Mapping[str, Any], *, by_score: bool) -> Iterator[dict[str, str]]:
    for by, (name, meaning) in _HALVES.items():
        halves = found.get(f"split_half_by_{by}")
        if halves is None:
            continue
        said = tr(meaning, n=halves["n_splits"], stepped_up=number(halves["stepped_up"]))
        if by_score:
            said = (
                tr(
                    "Pairs were chosen by score, and both halves share what that choice fed upon,"
                    " so this is too high: do not quote it."
                )
                + f" {said}"
            )
        yield {
            "name": tr(name) + (tr(", too high here") if by_score else ""),
            "value": tr(
                "{value} ({lower} to {upper})",
                value=number(halves["median"]),
                lower=number(halves["lower"]),
                upper=number(halves["upper"]),
            ),
            "meaning": said,
        }


def position_rows(history: BatchHistory) -> list[str]:
    """Return in sentences the effect of being shown first on each judge, by the model."""
    sentences = []
    for judge_id, effect in history.statistics.get("position_effects", {}).items():
        said = tr(
            "To {judge}, being shown first is worth {value} logits (95 % interval {lower} to"
            " {upper}).",
            judge=history.judge_by_id[judge_id]["name"],
            value=signed(effect["value"]),
            lower=signed(effect["lower"]),
            upper=signed(effect["upper"]),
        )
        is_none = effect["lower"] <= 0 <= effect["upper"]
        sentences.append(
            f"{said} "
            + (tr("Nothing measurable.") if is_none else tr("The scores have it taken out."))
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
                "infit": number(judge["infit"]),
                "outfit": number(judge["outfit"]),
                "discrimination": _ratio(strength),
                "agreement": _number(alone.get("agreement_with_the_others"), 2),
                "without": _number(alone.get("largest_rank_change_without"), 0),
            }
        )
    return rows


def _share(share: dict[str, Any]) -> str:
    if share["share"] is None:
        return "–"
    return tr(
        "{share} of {n} ({lower} to {upper})",
        share=percent(share["share"]),
        n=share["n"],
        lower=percent(share["lower"]),
        upper=percent(share["upper"]),
    )


def _ratio(estimate: dict[str, float] | None) -> str:
    """Return a log discrimination as a factor."""
    if estimate is None:
        return "–"
    from math import exp

    value, lower, upper = (number(exp(estimate[key])) for key in ("value", "lower", "upper"))
    return tr("{value} ({lower} to {upper})", value=value, lower=lower, upper=upper)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)


def anchor_sentences(history: BatchHistory) -> list[str]:
    """Return in sentences what the anchors say about themselves; none without a check."""
    if history.grading is None or not history.grading["anchor_check"]:
        return []
    kept = history.grading["disagreement"]
    return [
        *_sentences(history.grading["anchor_check"]),
        *(_expected_disagreement(kept["expected"]) if kept else ()),
    ]


def _expected_disagreement(expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was taken of judge and graders before this batch's anchors said anything."""
    taken = ExpectedDisagreement.from_record(expected)
    if taken.learnt_from:
        yield tr(
            "Earlier batches by these judges with the same template, rubric and scale: {n}. From"
            " them a difference of {steps} steps was expected ({lower} to {upper}).",
            n=len(taken.learnt_from),
            steps=number(taken.prior.median),
            lower=number(taken.prior.lower),
            upper=number(taken.prior.upper),
        )
    else:
        yield tr(
            "No earlier batch tells how these judges differ from graders, so what is usual was"
            " expected: {steps} steps ({lower} to {upper}).",
            steps=number(taken.prior.median),
            lower=number(taken.prior.lower),
            upper=number(taken.prior.upper),
        )


def _log_score(score: Mapping[str, Any]) -> Iterator[str]:
    yield tr(
        "The known grades had a log score of {mean} an anchor, each graded by the others;"
        " {expected} is to be expected if the probabilities are right, {guessing} is guessing, 0 is"
        " the best.",
        mean=number(score["mean"]),
        expected=number(score["expected"]),
        guessing=number(score["guessing"]),
    )
    if score["chance"] < TOO_SURE:
        yield tr(
            "So low a log score has a probability of {chance} if the probabilities are right: the"
            " grades are surer than they should be. Have people grade some students as a sample.",
            chance=number(score["chance"], 4),
        )


def anchor_fits(history: BatchHistory) -> dict[str, Mapping[str, Any]]:
    """Return each anchor's own part of the check under its id, infit and outfit among it."""
    check = history.grading["anchor_check"] if history.grading is not None else {}
    return {row["essay_id"]: row for row in check.get("anchors", ())}


def _sentences(check: Mapping[str, Any]) -> Iterator[str]:
    if check["exact"] is not None:
        yield tr(
            "Graded by the others, {exact} of {n} anchors get their known grade and {within} are at"
            " most one step off; they are off by {error} steps on average, and come out {bias}"
            " steps above their grades (0 is no bias).",
            exact=percent(check["exact"]),
            n=check["n_anchors"],
            within=percent(check["within_one"]),
            error=number(check["mean_absolute_error"], 1),
            bias=signed(check["bias"]),
        )
    if check["kendall_tau"] is not None:
        tau = number(check["kendall_tau"])
        if check["tau_lower"] is not None:
            lower, upper = number(check["tau_lower"]), number(check["tau_upper"])
            tau = tr(
                "{value} (95 % interval {lower} to {upper})", value=tau, lower=lower, upper=upper
            )
        yield tr(
            "Scores follow known grades with Kendall's tau {tau}; 1 is the same order.", tau=tau
        )
    if check["disagreement"] is not None:
        yield tr(
            "What the anchors' graders saw and what the judge saw differ by about {steps} steps;"
            " graders among themselves by about half a step.",
            steps=number(check["disagreement"], 1),
        )
    if check.get("log_score"):  # gradings of earlier versions have none
        yield from _log_score(check["log_score"])
    if check["n_direct"]:
        yield tr(
            "Of {n} verdicts between anchors of different grades, {against} went to the one with"
            " the lower grade.",
            n=check["n_direct"],
            against=check["n_direct_inversions"],
        )
    for row in check["inversions"]:
        if row["is_beyond_error"]:
            yield tr(
                "{lower} has the lower grade and yet scores {excess} logits above {higher}, more"
                " than the errors of their scores explain: check both.",
                lower=row["lower"],
                excess=number(row["excess"]),
                higher=row["higher"],
            )
    if check["zero_win_anchors"]:
        yield tr(
            "Won nothing although others are graded lower: {anchors}.",
            anchors=", ".join(check["zero_win_anchors"]),
        )

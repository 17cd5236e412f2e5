"""What the report says of verdicts that repeat each other, and of what no verdict can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.judging.makers import of_one_maker
from cj_pipeline.outputs.language import number, percent, signed, to_translate, tr, whole
from cj_pipeline.queries.history import BatchHistory

_WORTH_SAYING = 0.05
"""Correlation below which verdicts as good as tell afresh."""

SHARED_ERRORS = to_translate(
    "Errors that all judges share about an essay are in no figure of precision: their verdicts"
    " agree on them."
)


def dependence_sentences(history: BatchHistory) -> list[str]:
    """Return in sentences what verdicts share, and what a panel is worth."""
    found = history.statistics.get("dependence")
    sentences = [] if found is None else list(_shared(found))
    sentences += [
        tr(
            "{judges} are of one maker ({maker}): what they have been taught alike they may get"
            " wrong alike.",
            judges=tr("{names} and {last}", names=", ".join(names[:-1]), last=names[-1]),
            maker=maker,
        )
        for maker, names in of_one_maker(history.judges).items()
    ]
    return sentences


def validity(history: BatchHistory) -> dict[str, str]:
    """Return how far scores agree with people, in words: `value` and `meaning`.

    Precision is how surely the judges' own order is known; whether people would order alike, only
    people's grades or verdicts can show. They are read from `validity` among the statistics.
    """
    found = history.statistics.get("validity")
    if not found:
        return {
            "value": tr("not known"),
            "meaning": tr("No grades or verdicts of people are kept for these students.")
            + f" {tr(SHARED_ERRORS)} "
            + tr(
                "Ten students graded by a teacher as a sample would take out a level that is off by"
                " a step, which ten alone seldom prove, and bring the grades' confidence to what it"
                " says."
            ),
        }
    value = tr(
        "{value} ({lower} to {upper})",
        value=number(found["r2"]),
        lower=number(found["lower"]),
        upper=number(found["upper"]),
    )
    if found.get("level") is not None:
        value += tr(
            "; level: people's grades lie {level} steps from the judges' ({lower} to {upper})",
            level=signed(found["level"]),
            lower=signed(found["level_lower"]),
            upper=signed(found["level_upper"]),
        )
    return {
        "value": value,
        "meaning": tr(
            "The share of the differences between scores that people see too (r²), by what they"
            " graded or judged, with the limits between which it lies with 95 % probability."
        ),
    }


def _shared(found: Mapping[str, Any]) -> Iterator[str]:
    repeated, between = found["repeated"], found["between"]
    if repeated is not None and repeated["value"] >= _WORTH_SAYING:
        yield tr(
            "A judge's verdicts on one pair repeat each other ({how}), so they count for what they"
            " tell together: {n} verdicts are worth {worth}.",
            how=_how_known(repeated),
            n=whole(found["n_verdicts"]),
            worth=whole(found["effective_verdicts"]),
        )
    if between is not None and between["is_estimated"]:
        said = tr(
            "{n} judges on one pair are worth {worth} independent ones ({how}): asked nothing but"
            " the same pairs, {share} of their verdicts would tell nothing new.",
            n=found["n_judges"],
            worth=number(found["effective_judges"], 1),
            how=_how_known(between),
            share=percent(1 - found["effective_judges"] / found["n_judges"]),
        )
        yield f"{said} {tr(SHARED_ERRORS)}"
    if found["n_judges"] > 1:
        yield tr(
            "What judges see differently in an essay has a standard deviation of {sd} logits; each"
            " score's error has its part of it, and more judges, not more verdicts, make it"
            " smaller.",
            sd=number(found["judge_variance"] ** 0.5),
        )


def _how_known(correlation: Mapping[str, Any]) -> str:
    value = number(correlation["value"])
    if correlation["is_estimated"]:
        return tr("residual correlation {value} over {n}", value=value, n=whole(correlation["n"]))
    return tr("too few to say how much: {value}, which is usual, is taken", value=value)

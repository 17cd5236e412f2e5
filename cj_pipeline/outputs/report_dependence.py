"""What the report says of verdicts that repeat each other, and of what no verdict can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cj_pipeline.judging.makers import of_one_maker
from cj_pipeline.queries.history import BatchHistory

_WORTH_SAYING = 0.05
"""Correlation below which verdicts as good as tell afresh."""

SHARED_ERRORS = (
    "Errors that all judges share about an essay are in no figure of precision: their verdicts"
    " agree on them."
)


def dependence_sentences(history: BatchHistory) -> list[str]:
    """Return in sentences what verdicts share, and what a panel is worth."""
    found = history.statistics.get("dependence")
    sentences = [] if found is None else list(_shared(found))
    for maker, names in of_one_maker(history.judges).items():
        sentences.append(
            f"{_listed(names)} are of one maker ({maker}): what they have been taught alike they"
            " may get wrong alike."
        )
    return sentences


def validity(history: BatchHistory) -> dict[str, str]:
    """Return how far scores agree with people, in words: `value` and `meaning`.

    Precision is how surely the judges' own order is known; whether people would order alike, only
    people's grades or verdicts can show. They are read from `validity` among the statistics.
    """
    found = history.statistics.get("validity")
    if found is None:
        return {
            "value": "not known",
            "meaning": "No grades or verdicts of people are kept for these students."
            f" {SHARED_ERRORS} Ten students graded by a teacher as a sample would take out a level"
            " that is off by a step, which ten alone seldom prove, and bring the grades' confidence"
            " to what it says.",
        }
    level = found.get("level")
    said = "" if level is None else f"; level off by {level:+.1f} steps"
    return {
        "value": f"{found['r2']:.2f} ({found['lower']:.2f} to {found['upper']:.2f}){said}",
        "meaning": "The share of the differences between scores that people see too, by what they"
        " graded or judged, with the limits between which it lies with 95 % probability.",
    }


def _shared(found: Mapping[str, Any]) -> Iterator[str]:
    repeated, between = found["repeated"], found["between"]
    if repeated is not None and repeated["value"] >= _WORTH_SAYING:
        yield (
            f"A judge's verdicts on one pair repeat each other ({_how_known(repeated)}), so they"
            " count for what they tell together:"
            f" {found['n_verdicts']:,} verdicts are worth {found['effective_verdicts']:,.0f}."
        )
    if between is not None and between["is_estimated"]:
        yield (
            f"{found['n_judges']} judges on one pair are worth {found['effective_judges']:.1f}"
            f" independent ones ({_how_known(between)}): asked nothing but the same pairs,"
            f" {1 - found['effective_judges'] / found['n_judges']:.0%} of their verdicts would tell"
            f" nothing new. {SHARED_ERRORS}"
        )
    if found["n_judges"] > 1:
        sd = found["judge_variance"] ** 0.5
        yield (
            f"What judges see differently in an essay has a standard deviation of {sd:.2f} logits;"
            " each score's error has its part of it, and more judges, not more verdicts, make it"
            " smaller."
        )


def _how_known(correlation: Mapping[str, Any]) -> str:
    if correlation["is_estimated"]:
        return f"residual correlation {correlation['value']:.2f} over {correlation['n']:,}"
    return f"too few to say how much: {correlation['value']:.2f}, which is usual, is taken"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

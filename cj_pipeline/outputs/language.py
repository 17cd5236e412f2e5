"""The languages that pages and class lists are written in, and how each writes numbers and dates.

Every sentence stands in the code in English and is looked up in `translations/<language>.json`; a
test holds that none is missing there. `speaking` sets the language of whatever is made within it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "sv", "de")

_spoken: ContextVar[str] = ContextVar("spoken", default="en")

_DATES = {
    "en": "{:%Y-%m-%d %H:%M} UTC",
    "sv": "{:%Y-%m-%d %H:%M} UTC",
    "de": "{:%d.%m.%Y %H:%M} UTC",
}
_FIGURE = re.compile(r"[+-]?\d+\.\d+")
_THOUSANDS = {"en": ",", "sv": "\u00a0", "de": "."}


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Write in a language of `LANGUAGES` within."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def spoken() -> str:
    """Return the language written in now."""
    return _spoken.get()


def language_for(settings: Mapping[str, Any]) -> str:
    """Return what a batch's report and class list are written in: as set, else English."""
    return settings.get("report_language") or "en"


def students_language(settings: Mapping[str, Any]) -> str:
    """Return what a student's page is written in: as its essays where it can be, else English."""
    short = str(settings.get("language") or "en").split("-")[0].lower()
    return short if short in LANGUAGES else "en"


def has_decimal_comma() -> bool:
    """Whether the language written in now parts decimals by a comma."""
    return spoken() != "en"


def tr(sentence: str, /, **values: object) -> str:
    """Return a sentence in the language written in now, with `{names}` filled in."""
    said = _catalogue(spoken()).get(sentence, sentence)
    return said.format(**values) if values else said


def tr_stored(text: str) -> str:
    """Return sentences that the store keeps in English, those known in the language of now."""
    if spoken() == "en" or not text:
        return text
    for pattern, sentence in _stored_patterns():
        text = pattern.sub(functools.partial(_said_of, sentence), text)
    return text


def _said_of(sentence: str, found: re.Match[str]) -> str:
    return tr(sentence, **{gap: _figure_of(said) for gap, said in found.groupdict().items()})


def _figure_of(said: str) -> str:
    return _localised(said) if _FIGURE.fullmatch(said) else tr_stored(said)


def to_translate(sentence: str) -> str:
    """Return the sentence itself: it is looked up by `tr` where it is used."""
    return sentence


def counted(n: int, one: str, many: str, **values: object) -> str:
    """Return one of two sentences by a count, which is `{n}` in both."""
    return tr(one if n == 1 else many, n=whole(n), **values)


def number(value: float, decimals: int = 2) -> str:
    """Return a number with so many decimals, and a true minus."""
    return _localised(f"{value:,.{decimals}f}")


def plain(value: float) -> str:
    """Return a number as short as it can be written."""
    return _localised(f"{value:g}")


def whole(value: float) -> str:
    """Return a count."""
    return number(value, 0)


def signed(value: float) -> str:
    """Return a score with its sign and two decimals."""
    return _localised(f"{value:+.2f}")


def percent(share: float) -> str:
    """Return a share in whole per cent."""
    return f"{100 * share:.0f}\u00a0%"


def dollars(usd: float) -> str:
    """Return dollars with as many decimals as it takes to see that something was paid."""
    decimals = 2 if usd == 0 or usd >= 1 else min(6, 1 - math.floor(math.log10(usd)))
    amount = _localised(f"{usd:,.{max(2, decimals)}f}")
    return f"${amount}" if spoken() == "en" else f"{amount}\u00a0USD"


def moment(at: datetime | None) -> str:
    """Return a moment to the minute."""
    return _DATES[spoken()].format(at) if at is not None else "–"


STORED = (
    "Graded by {n} anchors of {grades} grades.",
    "No anchor for {grades}: borrowed from its neighbours.",
    "Students who score outside all anchors: {n}.",
    "No grades, only scores and ranks.",
    "There are no anchors: add essays whose grades are known.",
    "The anchors ({n}) carry too few different grades ({grades}): add anchors of other "
    "grades, so that there are {least} at least.",
    "No chain of comparisons links {essays} to any anchor: judge pairs across, "
    "`bridging_pairs` lists them.",
    "The anchors' scores do not rise with their grades beyond chance ({z} standard errors "
    "where {asked} are asked for): check the anchors' grades and the judge, or judge more "
    "pairs.",
    "The judge and the anchors' graders disagree by {steps} steps, more than {most}.",
    "Of {n} students, {outside} score outside all anchors: add anchors as weak or as strong"
    " as these students.",
    "Against their grades, and beyond the errors of their scores, {pairs}: check these anchors.",
    "'{lower}' scores above '{higher}'",
    "No grades: the batch ended as {reason}.",
    "No grades: the verdicts do not join all essays into one net.",
    "Scores and ranks only: the batch names no grade scale.",
    "Scores and ranks only: no anchors carry grades on {scale}.",
    "A person waived what need not hold any more: {what}.",
    "Placed on the scale of '{batch}'.",
    "Graded otherwise before than here, where its grade counts: {anchors}.",
    "Linked through {n} anchors.",
    "Moved against the others, and essays of their own here: {anchors}.",
    "More than a quarter of the anchors moved: anchors that move together cannot be told "
    "from students who changed, so do not rely on the level.",
    "A drift of an anchor under {logits} logits would not have been seen.",
    "The judges separate essays unequally well: a logit of the later one is {unit} of the "
    "earlier one's, and its scores were divided by that.",
    "The students' mean changed by {change} ± {error} logits, unless all anchors moved "
    "alike, which no verdict shows.",
    "Moderated by {n} students' grades: by the exemplars alone students came out {steps} "
    "steps too high, and that is taken out.",
    "Moderated by {n} students' grades: by the exemplars alone students came out {steps} "
    "steps too low, and that is taken out.",
    "The sample alone shows a difference.",
    "The sample alone does not prove one: it would show a difference from {steps} steps on.",
    "The sample contradicts the exemplars so far that the grades rest on few draws: check "
    "the exemplars, or make the sampled students anchors and grade again.",
    "{n} essays won or lost everything ({essays}): how far out they lie rests on the prior.",
    "The essays fall into {n} groups that only ever beat each other one way: the distances "
    "between the groups rest on the prior.",
    "The verdicts of {n} judges ({judges}) cannot separate their position effect from the "
    "essays' scores: it is off for them. Show pairs in both orders, or judge more.",
    "No verdict is a tie, so ties have no strength to estimate.",
    "One judge alone has no discrimination apart from the scale itself.",
)
"""Sentences of fits and gradings, as `scale` and `grading` write them; others stay English."""


@functools.cache
def _stored_patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return each stored sentence with the pattern that finds it."""
    found = []
    for sentence in STORED:
        parts = re.split(r"\{(\w+)\}", sentence)
        texts = [re.escape(part) for part in parts[::2]]
        gaps = dict.fromkeys(parts[1::2], ".+?") | {"n": r"\d+"}
        names = [f"(?P<{name}>{gaps[name]})" for name in parts[1::2]]
        whole_of = "".join(a + b for a, b in zip(texts, [*names, ""], strict=True))
        whole_of = re.sub(r"\\\.$", r"\\.(?!\\d)", whole_of)  # 1.5 does not end a sentence
        found.append((re.compile(whole_of), sentence))
    return found


def _localised(figure: str) -> str:
    figure = figure.replace("-", "−")
    if not has_decimal_comma():
        return figure
    return figure.replace(",", "T").replace(".", ",").replace("T", _THOUSANDS[spoken()])


@functools.cache
def _catalogue(language: str) -> Mapping[str, str]:
    if language == "en":
        return {}
    path = files("cj_pipeline") / "outputs" / "translations" / f"{language}.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found

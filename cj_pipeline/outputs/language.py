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
    return tr(sentence, **found.groupdict())


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
)
"""Sentences of gradings, as `grading.projection` writes them; others stay English, marked so."""


@functools.cache
def _stored_patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return each stored sentence with the pattern that finds it."""
    found = []
    for sentence in STORED:
        parts = re.split(r"\{(\w+)\}", sentence)
        texts = [re.escape(part) for part in parts[::2]]
        names = [f"(?P<{name}>.+?)" for name in parts[1::2]]
        whole_of = "".join(a + b for a, b in zip(texts, [*names, ""], strict=True))
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

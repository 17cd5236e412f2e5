"""Names that no class register gives, guessed by lists of first names where a batch asks for it.

A guess finds most first names and misses others; docs/decisions/0075 says how many. What the
register knows is masked next door, in `masking`, and needs no guess. The lists come with the
optional package Faker (extra `names`), and only names in Latin letters are guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from cj_pipeline.batch.essays import Essay
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.masking import (
    WORD,
    NameFinder,
    folded,
    genitives,
    is_also_a_word,
    masked,
    words_in,
)

RECALL = (
    "about three in four names are found where nothing before them says that they are names, and"
    " far fewer of some countries"
)
"""What people are told beside each guess; `python -m benchmarks.unknown_names` measures it."""

_LOCALES = words_in(
    """
    az_AZ cs_CZ da_DK de_AT de_CH de_DE en_GB en_IE en_IN en_KE en_NG en_PK en_US es_ES et_EE fi_FI
    fr_DZ fr_FR hr_HR hu_HU it_IT lt_LT lv_LV nl_NL no_NO pl_PL pt_PT ro_RO sl_SI sv_SE tr_TR
    """
)
_LISTS = ("first_names", "first_names_male", "first_names_female")
_MIN_LETTERS = 3
"""Of a name that is found by the lists alone: Bo, Li and My are words somewhere."""

# First names in the lists that are places, months, feasts or nouns written with a capital.
_RATHER_SOMETHING_ELSE = words_in(
    """
    africa america asia austria berlin brooklyn chelsea china dallas dublin florence florida
    georgia holland houston india ireland israel italia kenya london madison malta melbourne milan
    orlando paris roma savannah sydney vienna virginia
    april august juli juni june may maj mars mai januar november oktober
    advent easter noel ostern silvester christian islam
    beste engel familie freude herr job kaiser kind prinz star tage vater ville welt
    """
)
_TITLE = r"(?:[Hh]errn?|Frau|Fräulein|[Ff]ru|[Ff]röken|Mr|Mrs|Ms|Miss|Mister|Dr|Prof)\.?"
_GREETING = (
    r"(?:Lieber?|Liebster?|Hallo|Hei|Hej|Hejsan|Tjena|Hi|Hello|Hey|Dear|Kära?|Käre|Cher|Chère)"
)
_SELF = (
    r"(?:[Ii]ch\ hei(?:ß|ss)e|[Nn]ame\ ist|namens|[Jj]ag\ heter|som\ heter|som\ hette|[Nn]amn\ är"
    r"|[Nn]ame\ is|[Nn]ame's|named|[Ii]ch\ bin\ die|[Ii]ch\ bin\ der)"
)
_SPACE = "[ \u00a0]"
_TITLE_BEFORE = re.compile(rf"\b{_TITLE}{_SPACE}")
_SELF_BEFORE = re.compile(rf"\b{_SELF}{_SPACE}".replace(r"\ ", _SPACE))
_GREETING_BEFORE = re.compile(rf"^\W*{_GREETING}{_SPACE}", re.MULTILINE)
_GREETING_ENDS = re.compile(r"\s*(?:[,!.:]|$)", re.MULTILINE)
# Who is greeted without a name, by how the word begins, folded.
_NO_NAME = words_in(
    """
    all brother bruder cousin dokto eltern famil frau freund friend fru grandma grandpa gruss grus
    herr kind klass kolleg lehrer lektor leser madam mama mamma mutter nachbar oma onkel opa papa
    pappa parents prasident profess rektor schul schwester sir sister student tante team teacher
    van vanner vater verwan
    """
)


@dataclass(frozen=True)
class NameGuesser:
    """Guesses which words of a text are names, beside those that a class's finder knows.

    Attributes:
        first_names: First names of many countries, folded.
        words: Folded words that stand in small letters somewhere in the batch, so are no names.
        known: Finds the names of the class, which are not told again.
    """

    first_names: frozenset[str]
    words: frozenset[str]
    known: NameFinder

    @classmethod
    def of(cls, texts: Iterable[str], names: Iterable[str]) -> NameGuesser:
        """Return a guesser for a batch of these texts, whose class has these names.

        Raises:
            ImportError: If the extra `names` is not installed.
        """
        words = {
            folded(word[0]) for text in texts for word in WORD.finditer(text) if word[0].islower()
        }
        return cls(_first_names(), frozenset(words), NameFinder.of(names))

    def found(self, text: str) -> list[tuple[int, int]]:
        """Return where words that look like names stand in a text, in order."""
        spans = {word.span() for word in _told_by_what_stands_before(text)}
        previous: re.Match[str] | None = None
        for word in WORD.finditer(text):
            beside = (
                previous is not None
                and previous.span() in spans
                and text[previous.end() : word.start()] in {" ", "-", "\u00a0"}
            )
            if self._is_a_first_name(word[0], least=2 if beside else _MIN_LETTERS) or (
                beside and self._may_be_a_family_name(word[0])
            ):
                spans.add(word.span())
            previous = word
        known = self.known.found(text)
        return sorted(
            (begins, ends)
            for begins, ends in spans
            if not any(begins < other_ends and other < ends for other, other_ends in known)
        )

    def _is_a_first_name(self, word: str, least: int) -> bool:
        if len(word) < least or not word[0].isupper():
            return False
        whole = folded(word)
        if is_also_a_word(word) or whole in self.words or whole in _RATHER_SOMETHING_ELSE:
            return False
        return any(form in self.first_names for form in (whole, *genitives(whole)))

    def _may_be_a_family_name(self, word: str) -> bool:
        """Whether a word after a name may belong to it: with a capital, and not met as a word."""
        whole = folded(word)
        return (
            word[0].isupper()
            and len(word) >= _MIN_LETTERS
            and any(form in _family_names() for form in (whole, *genitives(whole)))
            and whole not in self.words
        )


def with_guessed_names(
    reading: Reading, essays: Sequence[Essay], names: Sequence[str], *, mask: bool
) -> list[Essay]:
    """Tell how many words look like names that no register lists; mask them if that is wanted."""
    if find_spec("faker") is None:
        reading.problems.append(
            "batch.yaml: unknown_names: this needs lists of first names: install"
            " cj-pipeline[names], or leave it out"
        )
        return list(essays)
    guesser = NameGuesser.of((essay.text for essay in essays), names)
    done, n_words, n_essays = [], 0, 0
    for essay in essays:
        spans = guesser.found(essay.shown_text)
        n_words += len(spans)
        n_essays += bool(spans)
        if mask and spans:
            done.append(replace(essay, masked_text=masked(essay.shown_text, spans)))
        else:
            done.append(essay)
    told = "were masked" if mask else "are sent as they stand"
    reading.notices.append(
        f"unknown_names: {n_words} words in {n_essays} essays look like names that no register"
        f" lists, and {told}; `cj plan FOLDER --essays` shows them. This is a guess: {RECALL}"
    )
    return done


def _told_by_what_stands_before(text: str) -> Iterator[re.Match[str]]:
    """Yield words after a title, a greeting or `my name is`, whatever they are."""
    for pattern in (_TITLE_BEFORE, _SELF_BEFORE, _GREETING_BEFORE):
        for match in pattern.finditer(text):
            word = WORD.match(text, match.end())
            if word is None or not word[0][0].isupper() or len(word[0]) < 2:
                continue
            if folded(word[0]).startswith(tuple(_NO_NAME)):
                continue
            if pattern is not _GREETING_BEFORE or _GREETING_ENDS.match(text, word.end()):
                yield word


@cache
def _first_names() -> frozenset[str]:
    return _folded_lists(_LISTS)


@cache
def _family_names() -> frozenset[str]:
    return _folded_lists(("last_names",))


def _folded_lists(attributes: Sequence[str]) -> frozenset[str]:
    """Return the parts of all names in Faker's lists, folded."""
    found: set[str] = set()
    for locale in _LOCALES:
        provider = import_module(f"faker.providers.person.{locale}").Provider
        for attribute in attributes:
            for name in getattr(provider, attribute, ()):
                found |= {folded(part[0]) for part in WORD.finditer(name) if len(part[0]) > 1}
    return frozenset(found)

"""Names of the class register are masked in what judges are shown; the originals are kept.

Only names that the batch itself knows are masked, in the forms below; to guess others is for
`unknown_names`. What is found and what not is in docs/decisions/0034.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cj_pipeline.batch.essays import Essay
from cj_pipeline.intake.folder import Reading

MASK = "[name]"

MIN_LETTERS = 2
"""Of a part of a name: an initial alone would mask too much."""


def words_in(text: str) -> frozenset[str]:
    """Return the words of a list that is written as a text."""
    return frozenset(text.split())


_LETTERS = r"(?:[^\W\d_][\u0300-\u036f]*)+"  # accents may be marks of their own
WORD = re.compile(rf"{_LETTERS}(?:['\u2019\u02bc]{_LETTERS})*")
_PARTICLES = words_in(
    """
    von van der den de la le du da di dos das zu zum zur af av el al bin
    """
)
# Given and family names that are words too: masked only beside another part of the same name.
_ALSO_WORDS = words_in(
    """
    mark marks will rose grace hope joy may june april august bill rich art frank lang
    klein groß gross weiß weiss schwarz braun grün koch bauer weber jung stein berg
    wolf vogel fuchs winter sommer sonntag freitag lind ek björk sten ros sol lilja man
    vy kung young long white black brown green king page wood woods fields banks hill
    day price stark ernst heil
    an am in im so da du er sie es wo ob ja je no to be is it at on by me my we he she do go us
    ein eine den det att en ett au et il la un une vi ni de
    """
)
_SPELLED_OUT = str.maketrans({"ø": "o", "æ": "ae", "ł": "l", "đ": "d", "ı": "i"})
_CYRILLIC_CASES = ("а", "я", "у", "ю", "е", "и", "ы", "ом", "ем", "ой", "ей", "ым")
_MIN_CYRILLIC_STEM = 4
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
_GREETINGS = words_in(
    """
    hallo hej hi hello hey dear liebe lieber kära käre cher chère bonjour salut deine
    dein din your viele grüße hälsningar
    """
)


@dataclass(frozen=True)
class NameFinder:
    """Finds the names of a class in a text.

    Attributes:
        parts: Each part of each name, as it is compared, and the names it is a part of.
        unspaced: Finds whole names in scripts that put no blanks between words; None without any.
    """

    parts: dict[str, frozenset[int]]
    unspaced: re.Pattern[str] | None = None

    @classmethod
    def of(cls, names: Iterable[str]) -> NameFinder:
        """Return a finder for these names."""
        parts: dict[str, set[int]] = {}
        names = list(dict.fromkeys(names))
        for number, name in enumerate(names):
            for part in _parts(name):
                for form in _forms(part):
                    parts.setdefault(form, set()).add(number)
        whole = {"".join(name.split()) for name in names}
        unspaced = sorted((name for name in whole if _UNSPACED.fullmatch(name)), key=len)
        found = "|".join(r"\s?".join(map(re.escape, name)) for name in reversed(unspaced))
        return cls(
            {form: frozenset(numbers) for form, numbers in parts.items()},
            re.compile(found) if found else None,
        )

    def found(self, text: str) -> list[tuple[int, int]]:
        """Return where names stand in a text, as beginnings and ends, in order."""
        words = list(WORD.finditer(text))
        spans = []
        for at, word in enumerate(words):
            whose = self._whose(word[0])
            if not whose or word[0][0].islower():
                continue
            if is_also_a_word(word[0]) and not self._is_beside(words, at, whose, text):
                continue
            spans.append(word.span())
        if self.unspaced is not None:
            spans += [match.span() for match in self.unspaced.finditer(text)]
        return _apart(spans)

    def masked(self, text: str) -> str:
        """Return a text with each name in it as `MASK`; names side by side as one."""
        return masked(text, self.found(text))

    def _whose(self, word: str) -> frozenset[int]:
        whole = folded(word)
        pieces = [one for one in re.split("['\u2019\u02bc]", whole) if len(one) >= MIN_LETTERS]
        for form in (whole, *genitives(whole), *pieces):
            if form in self.parts:
                return self.parts[form]
        return frozenset()

    def _is_beside(
        self, words: Sequence[re.Match[str]], at: int, whose: frozenset[int], text: str
    ) -> bool:
        for other in (at - 1, at + 1):
            if not 0 <= other < len(words):
                continue
            first, second = sorted((at, other))
            between = text[words[first].end() : words[second].start()]
            if between.strip(" ,-\u00a0"):
                continue
            if self._whose(words[other][0]) & whose:
                return True
            if other < at and words[other][0].lower() in _GREETINGS:
                return True
        return False


def masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text with `MASK` in place of these spans, in order; side by side they are one."""
    pieces: list[str] = []
    end = 0
    for begins, ends in spans:
        if pieces and pieces[-1] == MASK and not text[end:begins].strip(" -\u2010\u00a0"):
            end = ends
            continue
        pieces += [text[end:begins], MASK]
        end = ends
    return "".join([*pieces, text[end:]])


def with_masked_names(
    reading: Reading, essays: Sequence[Essay], names: Sequence[str], *, others_stay: bool = True
) -> list[Essay]:
    """Return the essays with the class's names masked in what judges are shown."""
    if not names:
        reading.problems.append(
            "batch.yaml: mask_names: no names are known: give register.csv with the columns"
            " essay_id and name, or a column name in essays.csv"
        )
        return list(essays)
    finder = NameFinder.of(names)
    done, n_places = [], 0
    for essay in essays:
        n_here = len(finder.found(essay.text))
        n_places += n_here
        done.append(replace(essay, masked_text=finder.masked(essay.text)) if n_here else essay)
    reading.notices.append(
        f"mask_names: the {len(set(names))} names of the class and their forms were masked in"
        f" {n_places} places" + ("; other people's names stay" if others_stay else "")
    )
    return done


def _apart(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for begins, ends in sorted(spans):
        if merged and begins < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(ends, merged[-1][1]))
        else:
            merged.append((begins, ends))
    return merged


def _parts(name: str) -> list[str]:
    joined = [word.replace("-", "") for word in name.split() if "-" in word.strip("-")]
    return [
        part
        for word in [*WORD.findall(name), *joined]
        for part in re.split("['\u2019\u02bc]", word)
        if len(part) >= MIN_LETTERS and part.lower() not in _PARTICLES
    ]


def folded(word: str) -> str:
    """Return a word as names are compared: small, without accents, `ss` for `ß`."""
    lowered = unicodedata.normalize("NFKD", word.casefold().replace("ß", "ss"))
    plain = "".join(letter for letter in lowered if not unicodedata.combining(letter))
    return plain.translate(_SPELLED_OUT)


def _forms(part: str) -> set[str]:
    """Return a name's forms: without accents, and with `ue` for `ü` as keyboards without it."""
    spelled = part.lower()
    for letter, two in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa"), ("ø", "oe")):
        spelled = spelled.replace(letter, two)
    return {folded(part), folded(spelled)}


def genitives(word: str) -> list[str]:
    """Return what a folded word may be the genitive of."""
    stems = []
    for ending in ("'s", "\u2019s", "'", "\u2019", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= MIN_LETTERS:
            stems.append(word.removesuffix(ending))
    for ending in _CYRILLIC_CASES:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_CYRILLIC_STEM:
            stems.append(word.removesuffix(ending))
    return stems


def is_also_a_word(word: str) -> bool:
    """Whether a name, or what it is the genitive of, is a common word too."""
    return word.lower() in _ALSO_WORDS or word.lower().removesuffix("s") in _ALSO_WORDS

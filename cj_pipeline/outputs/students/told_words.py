"""Which of a judge's words a student may be shown: those about the student's own text alone.

A justification speaks of two texts. A sentence is told only if it names the student's text and not
the other, quotes nothing that is not in it, and holds neither a name from the class nor words that
only the other text has. What cannot be told apart is left out.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cj_pipeline.outputs.language import tr
from cj_pipeline.queries.history import BatchHistory, Row
from cj_pipeline.text import visible

_CALLED = (
    r"(?:essay|text|letter|story|answer|response|argument|piece|composition|uppsats(?:en)?|"
    r"text(?:en)?|brev(?:et)?|svar(?:et)?|aufsatz|brief|antwort|arbeit|schülertext)"
)
_OTHERS = re.compile(
    r"\b(other|others|both|either|neither|opponent|former|latter|first|second|than|"
    r"andere[nrsm]?|beide[nrs]?|ersteren?|letzteren?|erste[nrs]?|zweite[nrs]?|als|"
    r"andra|annan|båda|förra|senare|första|än)\b",
    re.IGNORECASE,
)
_QUOTES = re.compile(r"[\"“”„«»‟]([^\"“”„«»‟]{2,}?)[\"“”„«»‟]|(?<!\w)['‘‚]([^'‘’‚]{3,}?)['’](?!\w)")
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+|;\s+")
_SHARED_WORDS = 4
"""Words in a row that a sentence may share with the other text alone."""


@dataclass(frozen=True)
class ToldSentence:
    """A judge's sentence about one student's text.

    Attributes:
        text: The judge's words; the text is called by what it is to its writer.
        number: Of the comparison it comes from.
        is_praise: Whether the text won that comparison.
    """

    text: str
    number: int
    is_praise: bool


def told_sentences(history: BatchHistory, essay_id: str, row: Row) -> list[ToldSentence]:
    """Return what a verdict's justification says of one of its essays and may be told.

    Args:
        history: The batch.
        essay_id: The essay whose writer is told.
        row: A verdict on it, from `comparisons`.
    """
    is_first = row["essay_a"] == essay_id
    other = history.essay_by_id[row["essay_b"] if is_first else row["essay_a"]]
    mine = history.essay_by_id[essay_id]
    own, others = ("A", "B") if is_first else ("B", "A")
    checked = _Checked(
        own=own,
        others=others,
        text=_folded(mine["text"] or ""),
        other_text=_folded(other["text"] or ""),
        is_mine=frozenset({essay_id}),
        owners=_name_owners(history),
    )
    if row["winner"] == "tie":
        return []
    return [
        ToldSentence(_addressed(said, own), row["sequence"], row["winner_id"] == essay_id)
        for said in _sentences(row["justification"] or "")
        if checked.allows(said)
    ]


@dataclass(frozen=True)
class _Checked:
    own: str
    others: str
    text: str
    other_text: str
    is_mine: frozenset[str]
    owners: Mapping[str, frozenset[str]]

    def allows(self, said: str) -> bool:
        return (
            bool(re.search(rf"\b{_CALLED}\s+{self.own}\b", said, re.IGNORECASE))
            and not re.search(rf"(?<![\w’']){self.others}(?![\w’'])", said)
            and not _OTHERS.search(said)
            and all(_folded(quote).strip(" .,;:!?…") in self.text for quote in _quotes(said))
            and not self._names_somebody(said)
            and not self._is_from_the_other(said)
        )

    def _names_somebody(self, said: str) -> bool:
        words = re.findall(r"\w+", _folded(said))
        found = (self.owners.get(word, self.is_mine) for word in words)
        return any(self.is_mine.isdisjoint(owners) for owners in found)

    def _is_from_the_other(self, said: str) -> bool:
        words = re.findall(r"\w+", _folded(said))
        runs = (
            " ".join(words[i : i + _SHARED_WORDS]) for i in range(len(words) - _SHARED_WORDS + 1)
        )
        plain, other = (" ".join(re.findall(r"\w+", t)) for t in (self.text, self.other_text))
        if any(run in other and run not in plain for run in runs):
            return True
        # Names, nouns and figures that only the other text has would give its content away.
        told_apart = re.findall(r"(?<=\s)(?:[A-ZÄÖÅÜ]\w{3,}|\d+)", said)
        mine, theirs = set(plain.split()), set(other.split())
        return any(_folded(word) in theirs - mine for word in told_apart)


def _sentences(justification: str) -> Iterator[str]:
    for part in _SENTENCE.split(visible(justification)):
        if said := part.strip():
            yield said if said[-1] in ".!?…" else f"{said}."


def _quotes(said: str) -> list[str]:
    return [
        piece
        for one, two in _QUOTES.findall(said)
        for piece in re.split(r"\s*(?:\.\.\.|…|\[[^\]]*\])\s*", one or two)
        if piece.strip()
    ]


def _addressed(said: str, own: str) -> str:
    """Call the text what it is to its writer, in brackets, for the judge called it otherwise."""
    return re.sub(rf"\b{_CALLED}\s+{own}\b", f"[{tr('your text')}]", said, flags=re.IGNORECASE)


@functools.lru_cache(maxsize=1)
def _name_owners(history: BatchHistory) -> Mapping[str, frozenset[str]]:
    """Return the words by which anybody in the batch could be known, and whose they are."""
    owners: dict[str, set[str]] = defaultdict(set)
    for row in (*history.essays, *history.shared):
        for word in _name_words(row):
            owners[word].add(row.get("judged_id") or row["essay_id"])
    return {word: frozenset(whose) for word, whose in owners.items()}


def _name_words(row: Row) -> set[str]:
    named = (row["essay_id"], row.get("given_id"), row.get("name"), row.get("file_name"))
    words = re.findall(r"\w+", _folded(" ".join(str(each) for each in named if each)))
    return {w for w in words if len(w) > 2 and w not in _NO_NAMES}


_NO_NAMES = frozenset({"txt", "docx", "pdf", "odt", "csv", "xlsx", "rtf", "essay", "essays"}) | {
    *("text", "texts", "the", "and", "student", "pupil", "anchor", "anchors", "anker", "letter")
}


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").split())

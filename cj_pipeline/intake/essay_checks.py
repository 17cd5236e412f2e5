"""What a person should look at in each essay before it is judged: `cj plan FOLDER --essays`.

Nothing here keeps a batch from being taken and nothing is mended: a text is judged as handed in.
"""

from __future__ import annotations

import html
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cj_pipeline.batch.essays import Essay, label
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.intake.masking import NameFinder
from cj_pipeline.intake.unknown_names import NameGuesser
from cj_pipeline.text import excerpt, find_hidden, visible

MIN_WORDS_FOR_LANGUAGE = 10
MIN_WORDS_FOR_COPIES = 50
COPIED_SHARE = 0.4
"""Of the three-word runs of the shorter text; essays on one task share at most a third."""

LENGTH_RATIO = 3.0
"""How many times shorter or longer than the middle one an essay is when that is told."""

_MIN_FOR_MEDIAN = 5
_SHOWN = 60
_NAMES_SHOWN = 5
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,31}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_TAG = re.compile(
    r"</?(?:p|br|div|span|b|i|u|em|strong|a|font|table|td|tr|li|ul|ol|h[1-6])\b[^>]*>"
)
_TO_A_JUDGE = re.compile(
    r"""
    (?:ignor\w*|disregard|forget|vergiss|missachte\w*|glöm|oublie\w*)
        \W+(?:\w+\W+){0,4}?
        (?:instruct\w+|prompt|rules?|anweisung\w*|instruktion\w*|regeln|consignes?)
    | (?:choose|pick|prefer|select|wähle?|bevorzuge|välj|föredra|choisis\w*)
        \W+(?:this|my|essay|text|diesen|dieses|meinen|den\ här|denna|mitt|ce|mon)\W+(?:\w+\W+){0,2}?
        (?:essay|text|aufsatz|uppsats\w*|texte|as|winner|\b[ab]\b)
    | \b(?:as|you\ are|du\ bist|du\ är)\W+(?:an?|eine?|en|ett)?\W*
        (?:ai|llm|language\ model|judge|grader|assistant|ki|sprachmodell|bedömare|språkmodell)\b
    | \bessay\W+[ab]\W+(?:is|wins|ist|är)\b | \bsystem\ prompt\b | \bwinner\W+(?:is\W+)?[ab]\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class EssayLook:
    """An essay as a person checks it.

    Attributes:
        essay_id: Its id.
        called: What people call it.
        first_line: Its first line with something on it, shortened, hidden characters spelled out.
        last_line: Its last one.
        n_words: How many words it has.
        language: The language it is most likely in (ISO 639-1); empty below ten words.
        warnings: What to look at.
        notes: What was left out when its file was read.
    """

    essay_id: str
    called: str
    first_line: str
    last_line: str
    n_words: int
    language: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def look_at(batch: Batch) -> list[EssayLook]:
    """Return every essay of a batch as a person should see it, in the batch's order."""
    words = {essay.essay_id: _WORD.findall(essay.text) for essay in batch.essays}
    median = statistics.median(len(found) for found in words.values())
    copies = near_copies(batch.essays)
    finder = NameFinder.of(batch.class_names)
    guesser = _guesser(batch)
    wanted = batch.settings.values.language.split("-")[0].lower()
    if batch.settings.origins.get("language", "built-in") == "built-in":
        wanted = ""  # nobody said what the essays are in
    languages = {e.essay_id: _language(e.text, words[e.essay_id]) for e in batch.essays}
    usual = wanted or _most_common(languages.values())
    looks = []
    for essay in batch.essays:
        n_words = len(words[essay.essay_id])
        lines = [line.strip() for line in essay.text.split("\n") if line.strip()]
        warnings = [
            *_odd_letters(essay.text),
            *_other_language(essay.text, languages[essay.essay_id], usual),
            *_length(n_words, median, len(batch.essays)),
            *copies.get(essay.essay_id, ()),
            *_names(essay.text, finder, "names of the class in the text"),
            *_names(essay.text, guesser, "look like names that no register lists"),
        ]
        if _TO_A_JUDGE.search(essay.text):
            warnings.append("reads like an instruction to a judge")
        looks.append(
            EssayLook(
                essay_id=essay.essay_id,
                called=visible(label(essay.essay_id, essay.given_id, essay.name)),
                first_line=excerpt(lines[0], _SHOWN),
                last_line=excerpt(lines[-1], _SHOWN),
                n_words=n_words,
                language=languages[essay.essay_id],
                warnings=tuple(warnings),
                notes=essay.notes,
            )
        )
    return looks


def near_copies(essays: Sequence[Essay]) -> dict[str, list[str]]:
    """Return, for each essay that shares much with another, with which and how much."""
    runs = {essay.essay_id: _runs_of_three(essay.text) for essay in essays}
    called = {e.essay_id: visible(label(e.essay_id, e.given_id, e.name)) for e in essays}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    shared: Counter[tuple[str, str]] = Counter()
    for essay_id, found in runs.items():
        for run in found:
            for other in holders[run]:
                shared[other, essay_id] += 1
            holders[run].append(essay_id)
    told: dict[str, list[str]] = defaultdict(list)
    for (first, second), n_shared in sorted(shared.items(), key=lambda item: -item[1]):
        share = n_shared / min(len(runs[first]), len(runs[second]))
        if share >= COPIED_SHARE:
            told[first].append(f"shares {share:.0%} with {called[second]}")
            told[second].append(f"shares {share:.0%} with {called[first]}")
    return told


def _runs_of_three(text: str) -> set[tuple[str, ...]]:
    """Return the three-word runs of a text; none of one too short for them to tell anything."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if len(words) < MIN_WORDS_FOR_COPIES:
        return set()
    return set(zip(words, words[1:], words[2:], strict=False))


def _odd_letters(text: str) -> Iterator[str]:
    import ftfy.badness

    if ftfy.badness.is_bad(text):
        yield "letters that were decoded wrongly, as in 'fÃ¼r': see the file's encoding"
    if n := text.count("\ufffd"):
        yield f"{n} lost letters (U+FFFD)"
    if found := [m[0] for m in _ENTITY.finditer(text) if html.unescape(m[0]) != m[0]]:
        yield f"{len(found)} HTML entities, such as {found[0]}"
    if found := _TAG.findall(text):
        yield f"{len(found)} HTML tags, such as {visible(found[0][:20])}"
    if (hidden := find_hidden(text)) is not None:
        yield hidden.describe()


def _language(text: str, words: Sequence[str]) -> str:
    if len(words) < MIN_WORDS_FOR_LANGUAGE:
        return ""
    import py3langid

    return str(py3langid.classify(text)[0])


def _other_language(text: str, found: str, usual: str) -> Iterator[str]:
    if not found or not usual:
        return
    if found != usual:
        yield f"seems to be in {found}, where {usual} is expected"
        return
    words = text.split()
    if len(words) < 4 * MIN_WORDS_FOR_LANGUAGE:
        return
    half = len(words) // 2
    for part, what in ((words[:half], "first"), (words[half:], "second")):
        language = _language(" ".join(part), part)
        if language != usual:
            yield f"its {what} half seems to be in {language}, where {usual} is expected"


def _length(n_words: int, median: float, n_essays: int) -> Iterator[str]:
    if n_essays < _MIN_FOR_MEDIAN:
        return
    if n_words * LENGTH_RATIO < median:
        yield f"far shorter than the others ({n_words} words; half have {median:g} or more)"
    elif n_words > LENGTH_RATIO * median:
        yield f"far longer than the others ({n_words} words; half have {median:g} or fewer)"


def _guesser(batch: Batch) -> NameGuesser | None:
    if batch.settings.values.unknown_names == "keep":
        return None
    return NameGuesser.of((essay.text for essay in batch.essays), batch.class_names)


def _names(text: str, finder: NameFinder | NameGuesser | None, told: str) -> Iterator[str]:
    spans = finder.found(text) if finder is not None else []
    if found := list(dict.fromkeys(text[begins:ends] for begins, ends in spans)):
        more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
        yield f"{told}: {visible(', '.join(found[:_NAMES_SHOWN]))}{more}"


def _most_common(languages: Iterable[str]) -> str:
    counts = Counter(one for one in languages if one)
    return counts.most_common(1)[0][0] if counts else ""

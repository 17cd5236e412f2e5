"""Which column of a table holds what: the words people write at the head of their columns.

`tables` reads the cells. Only whole headings are matched, never parts of them, and where two
columns could be meant, the batch has to say which (`columns` in `batch.yaml`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cj_pipeline.ids import nearest

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "essay_id": (
        *("essay_id", "id", "nr", "no", "number", "student id", "candidate", "candidate number"),
        *("code", "kennung", "nummer", "kennnummer", "schüler-id", "matrikelnummer", "kürzel"),
        *("elev-id", "elevid", "kod", "löpnr", "löpnummer", "identifiant", "numéro", "n°"),
    ),
    "name": (
        *("name", "student", "full name", "student name", "pupil", "participant"),
        *("schüler", "schülerin", "schüler/in", "vollständiger name", "namn", "elev", "elevnamn"),
        *("nom", "élève", "nom complet", "nom et prénom"),
    ),
    "first_name": ("first name", "given name", "vorname", "förnamn", "prénom"),
    "last_name": (
        *("last name", "surname", "family name", "nachname", "familienname", "efternamn"),
        "nom de famille",
    ),
    "text": (
        *("text", "essay", "essay text", "answer", "response", "composition", "online text"),
        *("aufsatz", "aufsatztext", "schülertext", "antwort", "inhalt", "uppsats", "uppsatstext"),
        *("elevtext", "svar", "texte", "rédaction", "dissertation", "réponse", "copie"),
    ),
    "grade": (
        *("grade", "mark", "level", "note", "bewertung", "niveau", "stufe", "betyg", "nivå"),
        *("omdöme", "cefr", "zensur"),
    ),
    "group": ("group", "class", "klasse", "gruppe", "klass", "grupp", "classe", "groupe"),
    "file": ("file", "file name", "filename", "datei", "dateiname", "fil", "filnamn", "fichier"),
}
"""What a column may be called, by what it holds; the first of each is our own name for it."""


@dataclass(frozen=True)
class Columns:
    """Where in a row each thing stands.

    Attributes:
        places: The column, from 0, by what it holds.
        problems: Why the table cannot be read; each goes on from the table's name.
        notices: What a person should know of how it was read, likewise.
    """

    places: Mapping[str, int]
    problems: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def heading(cell: str) -> str:
    """Return a heading as it is compared: without case, marks of order, `_`, `-` and full stops."""
    folded = unicodedata.normalize("NFC", cell).strip().casefold()
    return " ".join(re.sub(r"[_\-.:*\s\u00a0\ufeff]+", " ", folded).split())


_KNOWN = {
    heading(word): (role, rank)
    for role, words in HEADINGS.items()
    for rank, word in enumerate(words)
}


def n_known(cells: Sequence[str]) -> int:
    """Return how many of the cells are headings that are known."""
    return sum(heading(cell) in _KNOWN for cell in cells)


def columns_of(
    header: Sequence[str], required: Sequence[str], mapping: Mapping[str, str]
) -> Columns:
    """Return where a table's columns stand.

    Args:
        header: The table's first row.
        required: What the table must hold, of the keys of `HEADINGS`.
        mapping: The batch's own words for its columns, by what they hold; they win.
    """
    own = _mapped(header, mapping)
    problems: list[str] = []
    found = {role: [at] for role, at in own.items()}
    for at, cell in enumerate(header):
        role, _ = _KNOWN.get(heading(cell), ("", 0))
        if role and role not in own and at not in own.values():
            found.setdefault(role, []).append(at)
    places: dict[str, int] = {}
    for role, ats in found.items():
        ours = [at for at in ats if heading(header[at]) == heading(role)]
        chosen = ats if len(ats) == 1 else ours if len(ours) == 1 else []
        if chosen:
            places[role] = chosen[0]
        elif len(ours) > 1:
            problems.append(f"names the column {role} twice")
        elif role in required or role == "name":
            named = " and ".join(repr(header[at]) for at in ats)
            problems.append(
                f"has the columns {named}, and each could be the {role}: say which in batch.yaml,"
                f" as in `columns: {{{role}: {header[ats[0]]}}}`"
            )
    notices = [
        f"{header[at]!r} is taken as the column {role}"
        for role, at in places.items()
        if role in required and role not in own and heading(header[at]) != heading(role)
    ]
    if "essay_id" in required and "essay_id" not in places:
        notices += _named_by(places, header)
    if "text" in required and "grade" not in required and "grade" in map(heading, header):
        problems.append("has a column grade; essays whose grade is known belong in anchors.csv")
    missing = [role for role in required if role not in places]
    if missing and not problems:
        problems.append(_lacks(missing, required, header, mapping))
    return Columns(places, tuple(problems), tuple(notices))


def _named_by(places: dict[str, int], header: Sequence[str]) -> list[str]:
    """Let essays without an id be known by their students' names."""
    if "name" in places:
        places["essay_id"] = places["name"]
    elif {"first_name", "last_name"} <= set(places):
        places["essay_id"] = places["first_name"]
    else:
        return []
    return [f"{header[places['essay_id']]!r} is taken as the column essay_id"]


def _mapped(header: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    own: dict[str, int] = {}
    compared = [heading(cell) for cell in header]
    for role, word in mapping.items():
        if heading(word) in compared:
            own[role] = compared.index(heading(word))
    return own


def _lacks(
    missing: Sequence[str],
    required: Sequence[str],
    header: Sequence[str],
    mapping: Mapping[str, str],
) -> str:
    named = ", ".join(filter(None, header)) or "nothing"
    hints = [
        f"; say in batch.yaml which it is, as in `columns: {{{role}: {cell.strip()}}}`"
        for role in missing
        for cell in header
        if nearest(heading(cell), [heading(word) for word in HEADINGS[role]], at_least=0.75)
    ]
    said = [
        f"; batch.yaml says it is {mapping[role]!r}{nearest(mapping[role], header, at_least=0.6)}"
        for role in missing
        if role in mapping
    ]
    hints = [*said, *hints]
    hint = hints[0] if hints else "; or say in batch.yaml which they are, with `columns`"
    return (
        f"lacks the column {', '.join(missing)}; its first line must name"
        f" {', '.join(required)} and it names {named}{hint}"
    )

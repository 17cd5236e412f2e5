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
        *("nom", "élève", "nom complet", "nom et prénom", "schülername", "name des schülers"),
        *("name der schülerin", "elevens namn", "nom de l'élève", "name, vorname"),
        *("nachname, vorname", "nom, prénom", "efternamn, förnamn", "last name, first name"),
    ),
    "first_name": ("first name", "given name", "vorname", "förnamn", "prénom"),
    "last_name": (
        *("last name", "surname", "family name", "nachname", "familienname", "efternamn"),
        "nom de famille",
    ),
    "text": (
        *("text", "essay", "essay text", "answer", "response", "composition", "online text"),
        *("aufsatz", "aufsatztext", "schülertext", "antwort", "inhalt", "uppsats", "uppsatstext"),
        *("elevtext", "elevens text", "svar", "texte", "texte de l'élève", "rédaction"),
        *("text des schülers", "text des aufsatzes", "dissertation", "réponse", "copie"),
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
    notices = _named_in_two(places, own, header)
    notices += [
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
        free = [cell for at, cell in enumerate(header) if at not in places.values()]
        problems.append(_lacks(missing, required, header, free, mapping))
    return Columns(places, tuple(problems), tuple(notices))


def _named_in_two(
    places: dict[str, int], own: Mapping[str, int], header: Sequence[str]
) -> list[str]:
    """Beside a first name, `Name` and `Nom` are the last name: "Prénom, Nom"."""
    if "last_name" not in places and {"first_name", "name"} <= set(places) - set(own):
        places["last_name"] = places.pop("name")
    if "name" in places or not {"first_name", "last_name"} <= set(places):
        return []
    first, last = header[places["first_name"]], header[places["last_name"]]
    return [f"{first!r} and {last!r} together are taken as the name"]


def _named_by(places: dict[str, int], header: Sequence[str]) -> list[str]:
    """Let essays without an id be known by their students' names."""
    role = "name" if "name" in places else "first_name"
    if role not in places:
        return []
    at = places["essay_id"] = places[role]
    if role == "first_name" and "last_name" in places:
        return []  # both together are the name, as is told already
    return [f"{header[at]!r} is taken as the column essay_id"]


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
    free: Sequence[str],
    mapping: Mapping[str, str],
) -> str:
    named = ", ".join(filter(None, header)) or "nothing"
    hints = [
        f"; say in batch.yaml which it is, as in `columns: {{{role}: {cell.strip()}}}`"
        for role in missing
        for cell in free
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

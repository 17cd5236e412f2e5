"""Who an essay is by: ids that never collide, and what a class register adds to them."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cj_pipeline.batch.essays import Essay
from cj_pipeline.ids import ids_for, same_name
from cj_pipeline.intake.folder import Reading
from cj_pipeline.intake.layout import REGISTER
from cj_pipeline.intake.settings import Column
from cj_pipeline.intake.tables import Row, table_named, table_rows


def with_ids(essays: Sequence[Essay]) -> list[Essay]:
    """Return the essays with ids: one for each name, different for different names.

    A student and an anchor that bear one name both keep it: the anchor's id then begins with
    `anchor-`. The same name twice among students, or among anchors, gives the same id twice.
    """
    names = {same_name(essay.given_id) for essay in essays if not essay.is_anchor}
    keys = [
        f"anchor\0{essay.given_id}"
        if essay.is_anchor and same_name(essay.given_id) in names
        else essay.given_id
        for essay in essays
    ]
    ids = ids_for(keys, prefixes=["anchor" if essay.is_anchor else "essay" for essay in essays])
    return [replace(essay, essay_id=one) for essay, one in zip(essays, ids, strict=True)]


def check_ids(reading: Reading, essays: Sequence[Essay]) -> None:
    """The same name twice is a problem; one told so that a person sees where they differ."""
    places = defaultdict(list)
    for essay in essays:
        places[essay.essay_id].append(essay)
    for essay_id, sharing in places.items():
        if len(sharing) < 2:
            continue
        told = _told_apart([essay.source_path for essay in sharing])
        listed = f"{', '.join(told[:-1])} and {told[-1]}"
        reading.problems.append(
            f"{listed} are of one name and share the essay id {essay_id!r}: rename all but one"
        )


def _told_apart(paths: Sequence[str]) -> list[str]:
    """Return paths for people; where two look alike, each with how its accents are written."""
    alike = Counter(unicodedata.normalize("NFC", path) for path in paths)
    if max(alike.values()) < 2 or len(set(paths)) < len(paths):
        return list(paths)
    return [f"{path} ({_accents(path)})" for path in paths]


def _accents(path: str) -> str:
    marks = [letter for letter in path if unicodedata.combining(letter)]
    if marks:
        codes = " ".join(f"U+{ord(mark):04X}" for mark in dict.fromkeys(marks))
        return f"accents as marks of their own, {codes}, as macOS writes names"
    letters = [letter for letter in path if unicodedata.normalize("NFD", letter) != letter]
    codes = " ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(letters))
    return f"accented letters as one, {codes}"


def with_register(
    reading: Reading, essays: Sequence[Essay], mapping: Mapping[Column, str]
) -> tuple[list[Essay], list[str]]:
    """Return the essays with what the class register says, and the names of the whole class.

    A row belongs to the students' essay that was handed in under its id or its name. Rows without
    an essay and essays without a row are told.
    """
    place = table_named(reading, REGISTER)
    if place is None:
        return list(essays), [essay.name for essay in essays if essay.name]
    rows = list(table_rows(reading, place, ("essay_id",), mapping))
    by_id = _by_id(reading, rows)
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[_key(row.cells.get("name", ""))].append(row)
    found: list[Essay] = []
    used: dict[str, str] = {}
    for essay in essays:
        known = None if essay.is_anchor else _row_of(reading, essay, by_id, by_name)
        if known is None:
            found.append(essay)
            continue
        other = used.setdefault(known.where, essay.source_path)
        if other != essay.source_path:
            reading.problems.append(
                f"{known.where} fits both {other} and {essay.source_path}: give each its own row"
            )
        found.append(
            replace(
                essay,
                name=essay.name or known.cells.get("name", "").strip() or None,
                group=essay.group or known.cells.get("group", "").strip() or None,
                attributes={**known.others, **essay.attributes},
            )
        )
    _tell_unmatched(reading, place, rows, set(used), found)
    names = [row.cells.get("name", row.cells["essay_id"]).strip() for row in rows]
    return found, [name for name in [*names, *(e.name for e in essays)] if name]


def _by_id(reading: Reading, rows: Sequence[Row]) -> dict[str, Row]:
    by_id: dict[str, Row] = {}
    for row in rows:
        key = _key(row.cells["essay_id"])
        other = by_id.setdefault(key, row)
        if key and other is not row:
            told = f"{row.cells['essay_id'].strip()!r} stands in {other.where} already"
            reading.problems.append(f"{row.where}: {told}")
    by_id.pop("", None)
    return by_id


def _row_of(
    reading: Reading, essay: Essay, by_id: Mapping[str, Row], by_name: Mapping[str, Sequence[Row]]
) -> Row | None:
    """Return an essay's row of the register: by its id, else by a name that only one row bears."""
    keys = [key for key in (_key(essay.given_id), _key(essay.name or "")) if key]
    for key in keys:
        if key in by_id:
            return by_id[key]
    for key in keys:
        rows = by_name.get(key, ())
        if len(rows) > 1:
            places = " and ".join(row.where for row in rows)
            reading.problems.append(
                f"{essay.source_path} could be by either of {places}, which bear one name: give the"
                " essay the id as its name"
            )
        if rows:
            return rows[0]
    return None


def _tell_unmatched(
    reading: Reading, place: str, rows: Sequence[Row], used: set[str], essays: Sequence[Essay]
) -> None:
    absent = [row.cells["essay_id"].strip() for row in rows if row.where not in used]
    if absent:
        reading.notices.append(f"{place}: no essay of {', '.join(absent)}")
    strangers = [
        essay.given_id
        for essay in essays
        if not essay.is_anchor and not any((essay.name, essay.group, essay.attributes))
    ]
    if strangers and used:
        reading.notices.append(f"{place} has no row for {', '.join(strangers)}")


def _key(name: str) -> str:
    """Return a name as rows and essays are matched by it: case and blanks aside."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())

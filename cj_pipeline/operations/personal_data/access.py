"""Everything a store holds on somebody who judged, graded or decided, for when they ask.

What they did is told in full. The essays they did it to are other people's, and an id is often a
name: each essay has an alias here, the same one throughout the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cj_pipeline.errors import UnknownPersonError
from cj_pipeline.operations.personal_data.erase_rows import (
    ID_COLUMNS,
    batches_of_person,
    columns_named_for_people,
    is_telling,
    names_of,
    tables_of,
)
from cj_pipeline.store.session import Session

NEVER_TOLD = frozenset({"token_sha256"})
"""What a link is known by: it says nothing of the person."""


def record_of_person(db: Session, person: str) -> dict[str, list[dict[str, Any]]]:
    """Return every row that names somebody, by its table.

    Args:
        db: A look at the store.
        person: The name, as `cj people show` gives it.

    Raises:
        UnknownPersonError: If nobody of this name judged, graded or decided in any batch.
    """
    batches = batches_of_person(db, person)
    if not batches:
        msg = f"No person called '{person}' judged or decided in any batch."
        raise UnknownPersonError(msg)
    aliases = {batch: _aliases(db, batch) for batch in batches}
    record: dict[str, list[dict[str, Any]]] = {}
    for table in sorted(tables_of(db)):
        columns = columns_named_for_people(db, table)
        if not columns:
            continue
        is_theirs = " OR ".join(f'"{column}" = $person' for column in columns)
        rows = db.rows(f'FROM "{table}" WHERE {is_theirs} ORDER BY ALL', {"person": person})
        if rows:
            record[table] = [_told(row, columns, person, aliases[row["batch_id"]]) for row in rows]
    return record


def _told(
    row: Mapping[str, Any], columns: list[str], person: str, aliases: Mapping[str, str]
) -> dict[str, Any]:
    """Return a row without what is other people's: their names, and the essays' ids."""
    others = {name for name in columns if row[name] != person}
    words = [re.escape(name) for name in sorted(aliases, key=len, reverse=True) if is_telling(name)]
    named = re.compile(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])") if words else None

    def told(column: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if column in ID_COLUMNS:
            return aliases.get(value, value)
        return named.sub(lambda found: aliases[found[0]], value) if named else value

    return {
        column: told(column, value)
        for column, value in row.items()
        if column not in NEVER_TOLD | others
    }


def _aliases(db: Session, batch_id: str) -> Mapping[str, str]:
    """Return what stands for each essay's id and names, in the order of the ids."""
    rows = db.rows("SELECT essay_id FROM essays WHERE batch_id = ? ORDER BY essay_id", [batch_id])
    return {
        name: f"essay-{number}"
        for number, row in enumerate(rows, start=1)
        for name in names_of(db, batch_id, row["essay_id"])
    }

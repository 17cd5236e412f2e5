"""What was erased since a backup is erased from it again, before it takes the store's place.

The store keeps no name of what it erased. Whose an alias is in the backup is told by what did not
change: an essay's place in its batch, and the keys of the rows in which a person judged or decided.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cj_pipeline.operations.personal_data.erase_rows import (
    PERSON_ALIAS,
    columns_named_for_people,
    tables_of,
)
from cj_pipeline.store.session import Session


def erased_since(
    live: Session, restored: Session, now: datetime
) -> dict[str, list[dict[str, Any]]]:
    """Return what was erased since a backup, as erasures that `finish_erasures` finishes.

    Args:
        live: The store as it is, of whatever version.
        restored: The backup, up to date.
        now: The time.

    Returns:
        Rows for the backup, by table.
    """
    if live.one("SELECT 1 AS found FROM duckdb_tables() WHERE table_name = 'forgotten'") is None:
        return {}
    known = {_key(row) for row in restored.rows("FROM forgotten")}
    since = [row for row in live.rows("FROM forgotten") if _key(row) not in known]
    batches = {row["batch_id"] for row in restored.rows("SELECT batch_id FROM batches")}
    found = [
        erasure | {"erasure_id": secrets.token_hex(8), "state": "intended", "asked_at": now}
        for row in since
        if row["batch_id"] in batches
        for erasure in _meant(live, restored, row)
    ]
    gone = [row for row in since if row["batch_id"] not in batches]
    return {"forgotten": gone, "erasures": found}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["forgotten_at"], row["batch_id"], row["essay_alias"]


def _meant(live: Session, restored: Session, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what one line of the audit is about, by the names the backup has for it."""
    batch_id, alias = row["batch_id"], row["essay_alias"]
    about: dict[str, Any] = {"batch_id": batch_id, "essay_alias": alias}
    if alias is None:
        yield about
    elif alias.startswith(PERSON_ALIAS):
        yield from (about | {"person": name} for name in _persons(live, restored, batch_id, alias))
    else:
        yield from (about | {"essay_id": name} for name in _essays(live, restored, batch_id, alias))


def _essays(live: Session, restored: Session, batch_id: str, alias: str) -> list[str]:
    place = live.one(
        "SELECT position FROM essays WHERE batch_id = ? AND essay_id = ?", [batch_id, alias]
    )
    if place is not None:
        rows = restored.rows(
            "SELECT essay_id FROM essays WHERE batch_id = ? AND position = ?",
            [batch_id, place["position"]],
        )
        return [row["essay_id"] for row in rows]
    # One that shared its text with another has no place of its own: it is there no more.
    query = "SELECT essay_id FROM shared_texts WHERE batch_id = ? ORDER BY essay_id"
    left = {row["essay_id"] for row in live.rows(query, [batch_id])}
    return [
        row["essay_id"] for row in restored.rows(query, [batch_id]) if row["essay_id"] not in left
    ]


def _persons(live: Session, restored: Session, batch_id: str, alias: str) -> list[str]:
    """Return the names that stand in the backup where the alias stands now."""
    names: set[str] = set()
    for table in tables_of(live):
        key = _primary_key(live, table)
        for column in columns_named_for_people(live, table):
            listed = ", ".join(f'"{each}"' for each in key)
            for row in live.rows(
                f'SELECT {listed} FROM "{table}" WHERE batch_id = ? AND "{column}" = ?',  # noqa: S608
                [batch_id, alias],
            ):
                where = " AND ".join(f'"{each}" = ?' for each in key)
                there = restored.one(
                    f'SELECT "{column}" AS name FROM "{table}" WHERE {where}',  # noqa: S608
                    [row[each] for each in key],
                )
                names |= {there["name"]} if there is not None and there["name"] else set()
    return sorted(names)


def _primary_key(db: Session, table: str) -> list[str]:
    row = db.one(
        "SELECT constraint_column_names AS names FROM duckdb_constraints() WHERE table_name = ?"
        " AND constraint_type = 'PRIMARY KEY' AND database_name = current_database()",
        [table],
    )
    return list(row["names"]) if row is not None else []

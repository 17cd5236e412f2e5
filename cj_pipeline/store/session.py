"""What one transaction on the store can do: read rows, and write them in bulk.

Opening, locking and committing is `store`; the schema is `schema`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal

import duckdb
import pyarrow as pa

Parameters = Sequence[Any] | Mapping[str, Any]
OnConflict = Literal["error", "ignore", "replace"]
Row = Mapping[str, Any]

_INSERT = {
    "error": "INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
    "ignore": "INSERT OR IGNORE INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
    "replace": "INSERT OR REPLACE INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
}


class Session:
    """One transaction on the store.

    Times come back aware, in UTC. JSON columns take mappings and lists, and `rows` and `one`
    give them back parsed.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Parameters = ()) -> None:
        """Run one statement, its values bound."""
        self._run(sql, params)

    def rows(self, sql: str, params: Parameters = ()) -> list[dict[str, Any]]:
        """Return the rows of a query, JSON columns parsed."""
        result = self._run(sql, params)
        names = [column[0] for column in result.description or []]
        json_columns = [c[0] for c in result.description or [] if str(c[1]) == "JSON"]
        found = [dict(zip(names, values, strict=True)) for values in result.fetchall()]
        for name in json_columns:
            for row in found:
                if row[name] is not None:
                    row[name] = json.loads(row[name])
        return found

    def one(self, sql: str, params: Parameters = ()) -> dict[str, Any] | None:
        """Return the first row of a query, or None if it has none."""
        found = self.rows(sql, params)
        return found[0] if found else None

    def insert(
        self, table: str, rows: Iterable[Any] | pa.Table, *, on_conflict: OnConflict = "error"
    ) -> None:
        """Add rows to a table in one go.

        Args:
            table: One of the store's tables.
            rows: Mappings, frozen dataclasses or an Arrow table. Columns that no row names
                get their default.
            on_conflict: What happens to a row whose primary key is there already.

        Raises:
            duckdb.ConstraintException: If a key is taken (`error`) or a value is missing.
            ValueError: If a row names a column that the table does not have.
        """
        incoming = rows if isinstance(rows, pa.Table) else self._as_arrow(table, list(rows))
        if not incoming.num_rows:
            return
        columns = ", ".join(f'"{name}"' for name in incoming.column_names)
        self._connection.register("incoming_rows", incoming)
        try:
            self._connection.execute(_INSERT[on_conflict].format(table=table, columns=columns))
        finally:
            self._connection.unregister("incoming_rows")

    def _run(self, sql: str, params: Parameters) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(sql, bindable(params))

    def _as_arrow(self, table: str, rows: list[Any]) -> pa.Table:
        """Lay rows out by column, typed as the table is, so that nothing is guessed."""
        dicts = [_as_dict(row) for row in rows]
        schema = self._table_schema(table)
        names = list(dict.fromkeys(name for row in dicts for name in row))
        if unknown := [name for name in names if name not in schema.names]:
            msg = f"Table {table} has no column {', '.join(unknown)}"
            raise ValueError(msg)
        arrays = [
            _column([row.get(name) for row in dicts], schema.field(name).type) for name in names
        ]
        return pa.table(arrays, names=names)

    def _table_schema(self, table: str) -> pa.Schema:
        return self._connection.table(table).limit(0).to_arrow_table().schema


def _as_dict(row: Any) -> Row:
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    mapping: Row = row
    return mapping


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in values], kind)
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    """Return the text to be stored: JSON for a mapping or list, the value for an enum."""
    if value is None:
        return None
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    if isinstance(value, Enum):
        value = value.value
    return _storable(value)


def _plain(value: Any) -> Any:
    """Return what JSON can say of a value it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    msg = f"{type(value).__name__} cannot be stored as JSON"
    raise TypeError(msg)


def _storable(text: str) -> str:
    """Return text that UTF-8 can hold.

    A reply may escape half a surrogate pair; JSON readers let it through, UTF-8 does not, and
    one such reply must not cost its whole wave.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def bindable(params: Parameters) -> Any:
    """Return parameters as DuckDB takes them: mappings as JSON, text as UTF-8 can hold it."""
    if isinstance(params, Mapping):
        return {name: _bound(value) for name, value in params.items()}
    return [_bound(value) for value in params]


def _bound(value: Any) -> Any:
    return _text(value) if isinstance(value, str | Mapping) else value

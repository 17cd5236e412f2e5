"""What one transaction on the store can do: read rows, and write them in bulk.

Opening, locking and committing is `store`; the schema is `schema`.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import duckdb

from cj_pipeline.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

Parameters = Sequence[Any] | Mapping[str, Any]
OnConflict = Literal["error", "ignore", "replace"]
Row = Mapping[str, Any]

_INSERT = {
    "error": "INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
    "ignore": "INSERT OR IGNORE INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
    "replace": "INSERT OR REPLACE INTO {table} ({columns}) SELECT {columns} FROM incoming_rows",
}


@dataclass(frozen=True)
class Lease:
    """One taking of a batch by a process; each is numbered higher than the one before."""

    batch_id: str
    holder: str
    fence: int


class Session:
    """One transaction on the store.

    Times come back aware, in UTC. JSON columns take mappings and lists, and `rows` and `one`
    give them back parsed. `lease` is the one whose holder writes in it, where one does.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, lease: Lease | None = None) -> None:
        self._connection = connection
        self.lease = lease

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

    def records(self, kind: type[T], sql: str, params: Parameters = ()) -> list[T]:
        """Return the rows of a query as values of a frozen dataclass, checked against it.

        The query's columns are the dataclass's fields, no more and no fewer; their order does not
        matter. A query that begins with FROM selects exactly them. Text becomes the enum a field
        asks for.
        The dataclass's module imports the types it names plainly, for they are looked up here.

        Raises:
            StoreError: If columns and fields differ, by name or by type, or if there is nothing
                in a row where the field allows no None.
        """
        if sql.lstrip().startswith("FROM "):
            sql = f"SELECT {', '.join(_fields_of(kind))} {sql}"
        result = self._run(sql, params)
        columns = [(str(c[0]), str(c[1])) for c in result.description or []]
        fields = _fields_of(kind)
        _check_columns(kind, fields, columns)
        by_column = [
            _values_of(kind, name, fields[name], sql_type, values)
            for (name, sql_type), values in zip(
                columns, zip(*result.fetchall(), strict=True), strict=False
            )
        ]
        names = [name for name, _ in columns]
        return [
            kind(**dict(zip(names, values, strict=True))) for values in zip(*by_column, strict=True)
        ]

    def record(self, kind: type[T], sql: str, params: Parameters = ()) -> T | None:
        """Return the first row of a query as a frozen dataclass, or None if it has none.

        Raises:
            StoreError: As `records` does.
        """
        found = self.records(kind, sql, params)
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
        import pyarrow as pa  # late: what only reads need not wait for it

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
        import pyarrow as pa

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


@dataclass(frozen=True)
class _Field:
    """What a dataclass says of one field; `holds` is empty where anything goes."""

    holds: frozenset[type]
    enum: type[Enum] | None
    allows_none: bool


_COLUMN_HOLDS: Mapping[str, type] = {
    "VARCHAR": str,
    "BOOLEAN": bool,
    "DOUBLE": float,
    "FLOAT": float,
    "TIMESTAMP WITH TIME ZONE": datetime.datetime,
    "TIMESTAMP": datetime.datetime,
    "DATE": datetime.date,
} | dict.fromkeys(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT"), int
)
"""The Python type of a column's values, by the column's type; others are not checked."""


@functools.cache
def _fields_of(kind: type[Any]) -> Mapping[str, _Field]:
    hints = typing.get_type_hints(kind)
    return {f.name: _field(hints[f.name]) for f in dataclasses.fields(kind) if f.init}


def _field(annotation: Any) -> _Field:
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        parts = typing.get_args(annotation)
    else:
        parts = (annotation,)
    allows_none = types.NoneType in parts or Any in parts
    plain = [_plain_type(part) for part in parts if part is not types.NoneType]
    enums = [t for t in plain if t is not None and issubclass(t, Enum)]
    holds = frozenset() if None in plain else frozenset(t for t in plain if t is not None)
    return _Field(holds, enums[0] if enums else None, allows_none)


def _plain_type(annotation: Any) -> type | None:
    """Return the class of an annotation's values; None where it is not one class."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return type(typing.get_args(annotation)[0])
    found = origin or annotation
    return found if isinstance(found, type) else None


def _check_columns(
    kind: type[Any], fields: Mapping[str, _Field], columns: list[tuple[str, str]]
) -> None:
    """Raise StoreError if a query's columns are not a dataclass's fields."""
    names = [name for name, _ in columns]
    wrong = [f"no column for its field {name}" for name in fields if name not in names]
    wrong += [f"no field for the column {name}" for name in names if name not in fields]
    wrong += [f"the column {name} twice" for name in fields if names.count(name) > 1]
    for name, sql_type in columns:
        given = _COLUMN_HOLDS.get(sql_type)
        wanted = fields[name].holds if name in fields else frozenset()
        if given and wanted and not any(_may_hold(want, given) for want in wanted):
            holds = " or ".join(sorted(want.__name__ for want in wanted))
            wrong.append(f"the column {name} of type {sql_type} where the field holds {holds}")
    if wrong:
        msg = f"{kind.__name__} cannot be read from the store: there is {'; '.join(wrong)}."
        raise StoreError(msg)


def _may_hold(wanted: type, given: type) -> bool:
    """Return whether a field of one type may hold a column's values of another."""
    if issubclass(wanted, Enum):
        return given is str
    if given is int:
        return wanted in {int, float}
    return given is wanted or wanted is object


def _values_of(
    kind: type[Any], name: str, field: _Field, sql_type: str, values: tuple[Any, ...]
) -> Sequence[Any]:
    """Return a column's values as the field holds them.

    Raises:
        StoreError: If a value is missing where the field allows no None.
    """
    if not field.allows_none and None in values:
        msg = (
            f"{kind.__name__} cannot be read from the store: the column {name} is empty in row "
            f"{values.index(None) + 1} of {len(values)}."
        )
        raise StoreError(msg)
    if sql_type == "JSON":
        return [None if value is None else json.loads(value) for value in values]
    if field.enum is not None:
        return [None if value is None else field.enum(value) for value in values]
    return values


def _as_dict(row: Any) -> Row:
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    mapping: Row = row
    return mapping


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

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

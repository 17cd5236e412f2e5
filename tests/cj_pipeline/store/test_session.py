"""Rows in and out of one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from cj_pipeline.errors import StoreError
from cj_pipeline.store.file_store import FileStore

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


class Kind(StrEnum):
    """Stands for the domain's enums."""

    RESERVED = "reserved"


@dataclass(frozen=True)
class Entry:
    """Stands for the domain's frozen values."""

    batch_id: str
    submission_key: str
    judge_id: str
    kind: Kind
    usd: float
    entered_at: datetime


def _entry(usd: float = 1.0) -> Entry:
    return Entry("spring-9", "key", "judge", Kind.RESERVED, usd, NOW)


def _report(**changes: Any) -> dict[str, Any]:
    return {
        "batch_id": "spring-9",
        "revision": 1,
        "is_graded": True,
        "statement": "",
        "anchor_check": {},
        "projected_at": NOW,
    } | changes


def test_frozen_values_are_inserted_by_their_fields() -> None:
    """What travels between functions can be stored as it is, enums by their value."""
    with FileStore.in_memory().write() as db:
        db.insert("ledger", [_entry()])

        assert db.one("SELECT kind, usd FROM ledger") == {"kind": "reserved", "usd": 1.0}


def test_arrow_tables_are_inserted_whole() -> None:
    """The bulk path for rows that are columns already."""
    rows = pa.table(
        {
            "batch_id": ["b"] * 3,
            "submission_key": ["1", "2", "3"],
            "judge_id": ["j"] * 3,
            "kind": ["billed"] * 3,
            "usd": [0.1, 0.2, 0.3],
            "entered_at": [NOW] * 3,
        }
    )
    with FileStore.in_memory().write() as db:
        db.insert("ledger", rows)

        assert db.one("SELECT count(*) AS n FROM ledger") == {"n": 3}


def test_json_goes_in_and_comes_out_as_values() -> None:
    """Nobody above the store should see JSON as text."""
    check = {"tau": 0.5, "inversions": [["a", "b"]], "word": "å"}
    with FileStore.in_memory().write() as db:
        db.insert("grading_reports", [_report(anchor_check=MappingProxyType(check))])

        row = db.one("SELECT anchor_check FROM grading_reports")

    assert row == {"anchor_check": check}


def test_mappings_can_be_bound_to_json_columns() -> None:
    """Updates of one row write JSON as inserts do."""
    with FileStore.in_memory().write() as db:
        db.insert("grading_reports", [_report()])
        db.execute("UPDATE grading_reports SET anchor_check = ?", [{"tau": 1}])

        assert db.one("SELECT anchor_check FROM grading_reports") == {"anchor_check": {"tau": 1}}


@pytest.mark.parametrize(
    ("hostile", "kept"), [("half \ud800 pair", "half ? pair"), ("a\x00b", "a\x00b")]
)
def test_hostile_text_does_not_cost_its_wave(hostile: str, kept: str) -> None:
    """One reply with half a surrogate must not make a paid wave unstorable."""
    with FileStore.in_memory().write() as db:
        db.insert("grading_reports", [_report(statement=hostile)])
        db.execute("UPDATE grading_reports SET scale = ?", [hostile])

        row = db.one("SELECT statement, scale FROM grading_reports")

    assert row == {"statement": kept, "scale": kept}


def test_a_taken_key_is_an_error_unless_told_otherwise() -> None:
    """Silence about a double row would hide a double payment."""
    with FileStore.in_memory().write() as db:
        db.insert("ledger", [_entry()])

        with pytest.raises(duckdb.ConstraintException):
            db.insert("ledger", [_entry()])


@pytest.mark.parametrize(("on_conflict", "usd"), [("ignore", 1.0), ("replace", 2.0)])
def test_a_taken_key_is_ignored_or_replaced_on_request(on_conflict: Any, usd: float) -> None:
    """Steps may be repeated: writing the same twice leaves the same rows."""
    with FileStore.in_memory().write() as db:
        db.insert("ledger", [_entry(1.0)])
        db.insert("ledger", [_entry(2.0)], on_conflict=on_conflict)

        assert db.rows("SELECT usd FROM ledger") == [{"usd": usd}]


def test_an_unknown_column_is_named() -> None:
    """A mistyped field must not be dropped in silence."""
    with (
        FileStore.in_memory().write() as db,
        pytest.raises(ValueError, match="grading_reports has no column grad"),
    ):
        db.insert("grading_reports", [_report(grad=1)])


def test_no_rows_are_no_work() -> None:
    """A wave without failures inserts no failures."""
    with FileStore.in_memory().write() as db:
        db.insert("ledger", [])

        assert db.rows("FROM ledger") == []
        assert db.one("FROM ledger") is None


@dataclass(frozen=True)
class Report:
    """Stands for a value with a JSON column and columns that may be empty."""

    statement: str
    is_graded: bool
    anchor_check: dict[str, Any]
    scale: str | None


def test_rows_come_back_as_the_frozen_values_they_were() -> None:
    """What was stored from a dataclass is read into it: enums, times and numbers as they were."""
    with FileStore.in_memory().write() as db:
        db.insert("ledger", [_entry(), replace(_entry(2.5), submission_key="other")])

        sql = "FROM ledger ORDER BY usd"
        assert db.records(Entry, sql) == [
            _entry(),
            replace(_entry(2.5), submission_key="other"),
        ]
        assert isinstance(db.records(Entry, sql)[0].kind, Kind)


def test_a_query_without_rows_gives_no_values() -> None:
    """Neither an error nor a value of nothing."""
    with FileStore.in_memory().write() as db:
        sql = "FROM ledger"

        assert db.records(Entry, sql) == []
        assert db.record(Entry, sql) is None


def test_json_comes_back_parsed_and_what_is_missing_as_none() -> None:
    """A field of a mapping holds a mapping, and an empty column is None where that may be."""
    with FileStore.in_memory().write() as db:
        db.insert("grading_reports", [_report(anchor_check={"tau": 0.5})])

        found = db.record(Report, "FROM grading_reports")

        assert found == Report("", True, {"tau": 0.5}, None)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("statement, is_graded, anchor_check", "no column for its field scale"),
        ("statement, is_graded, anchor_check, scale, revision", "no field for the column revision"),
        ("statement, scale, anchor_check, scale, is_graded", "the column scale twice"),
        (
            "revision AS statement, is_graded, anchor_check, scale",
            "the column statement of type INTEGER where the field holds str",
        ),
        (
            "statement, 1 AS is_graded, anchor_check, scale",
            "the column is_graded of type INTEGER where the field holds bool",
        ),
        (
            "NULL::VARCHAR AS statement, is_graded, anchor_check, scale",
            "the column statement is empty in row 1 of 1",
        ),
    ],
)
def test_columns_that_are_not_the_fields_are_an_error(columns: str, told: str) -> None:
    """A query and a value that grew apart fail where they meet, by name, not somewhere later."""
    with FileStore.in_memory().write() as db:
        db.insert("grading_reports", [_report()])

        with pytest.raises(StoreError, match=f"Report cannot be read from the store: .*{told}"):
            db.records(Report, "SELECT " + columns + " FROM grading_reports")  # noqa: S608


def test_columns_are_checked_even_where_no_row_is_found() -> None:
    """Otherwise a wrong query would pass every test on an empty store."""
    with (
        FileStore.in_memory().write() as db,
        pytest.raises(StoreError, match="no field for the column batch_id"),
    ):
        db.records(Report, "SELECT * FROM grading_reports")


def test_whole_numbers_are_read_where_any_number_may_stand() -> None:
    """A sum of whole numbers is no reason to fail."""

    with FileStore.in_memory().write() as db:
        assert db.record(Usd, "SELECT 3 AS usd") == Usd(3)


@dataclass(frozen=True)
class Usd:
    """Stands for a value of one number."""

    usd: float

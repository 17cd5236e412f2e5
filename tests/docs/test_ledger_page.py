"""The one table of states lists those that the store has, and every word for what is waited for."""

from __future__ import annotations

import re

import duckdb

from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.store.migrations import migrate
from tests.support import ROOT

PAGE = (ROOT / "docs" / "ledger.md").read_text("utf-8")
WAITING_FOR = {"rows", "key", "credit", "sign_off", "person", "room", "earlier_batch"}


def _column(table: str, place: int) -> list[str]:
    """Return the words in code of one column of a table, from top to bottom."""
    cells = [line.split("|")[place] for line in table.splitlines() if line.startswith("|")]
    return [word for cell in cells[2:] for word in re.findall(r"`(\w+)`", cell)]


def _tables() -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.M)


def test_the_table_lists_every_state_of_a_job_and_of_a_batch() -> None:
    """A state that is shown and explained nowhere leaves its reader without a next step."""
    jobs, batches = re.split(r"^\| \*a batch\*.*\n", _tables()[0], flags=re.M)
    with duckdb.connect() as db:
        migrate(db)
        comment = db.execute(
            "SELECT comment FROM duckdb_columns()"
            " WHERE table_name = 'v_provider_jobs' AND column_name = 'state'"
        ).fetchone()
    assert comment
    named = re.findall(r"\w+", re.sub(r"\([^)]*\)", "", comment[0]))
    counted = next(metric for metric in METRICS if metric.name == "cj_batches")

    assert sorted(_column(jobs, 1)) == sorted(set(named) - {"or"})
    assert sorted(_column("||\n||\n" + batches, 1)) == sorted(word for (word,) in counted.always)


def test_every_word_for_what_is_waited_for_is_explained_once() -> None:
    """The words of jobs are among them; those that no code uses yet are marked as reserved."""
    states, words = _tables()[:2]

    assert set(_column(states, 4)) - {"waiting_for"} <= set(_column(words, 1)) == WAITING_FOR
    reserved = [line for line in words.splitlines() if "*reserved" in line]
    assert len(reserved) == 1

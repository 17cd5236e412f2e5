"""Replies become outcomes and bills, whatever the size of a job."""

from pathlib import Path

import pytest

from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine, run_to_end, write_batch

_KEPT = (
    "SELECT comparison_id, status, winner, tokens_prompt, cost_usd FROM comparisons ORDER BY ALL",
    "SELECT comparison_id, attempt, outcome, cost_usd FROM attempts ORDER BY ALL",
    "SELECT kind, usd FROM ledger ORDER BY ALL",
    "SELECT comparison_id, kind FROM callbacks JOIN attempts USING (custom_id) ORDER BY ALL",
)


def _rows(runtime: Runtime) -> list[list[dict[str, object]]]:
    with runtime.store.read() as db:
        return [db.rows(query) for query in _KEPT]


def test_a_job_settled_in_parts_comes_to_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by reading a part at a time; nothing else may depend on that."""
    folder = write_batch(tmp_path / "spring", n_students=6, settings={"all_at_once": True})
    whole, in_parts = open_engine(tmp_path / "whole"), open_engine(tmp_path / "in-parts")

    run_to_end(whole, folder)
    monkeypatch.setattr("cj_pipeline.provider_jobs.settlement.ROWS_AT_ONCE", 2)
    run_to_end(in_parts, folder)

    assert _rows(in_parts) == _rows(whole)
    assert len(_rows(in_parts)[0]) == 30

"""Stored callbacks read anew: what changes is said, kept beside what was, and never bought."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cj_pipeline.errors import InvalidOutputError
from cj_pipeline.judging.prompts import parse_verdict
from cj_pipeline.operations.reparse import reparse
from cj_pipeline.provider_jobs import replies as reading
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.maintenance import archive_callbacks
from tests.support.batches import open_engine, run_to_end, write_batch
from tests.support.served_emulator import served_emulator

ONE_WAVE = {
    "judges": ["quality"],
    "all_at_once": True,
    "max_resampling_passes_for_regular_net": 0,
    "max_attempts": 1,
    "scale": "eng5_np_national_9_step",
    "max_pairwise_comparisons": 78,
    "emulator_qualities": {f"student-{n:03d}": n / 2 for n in range(1, 5)}
    | {f"anchor-{n:03d}": n / 2 - 2 for n in range(1, 10)},
}

ONE_JUDGE = {
    "judges": ["mine"],
    "all_at_once": True,
    "max_resampling_passes_for_regular_net": 0,
    "max_attempts": 1,
}


def _old_parser(text: str, *, allow_ties: bool) -> Any:
    """Read what the judge said of B only: the other half it takes for nonsense."""
    verdict = parse_verdict(text, allow_ties=allow_ties)
    if verdict.winner == "A":
        msg = "The reply holds no verdict: winner missing or not as requested."
        raise InvalidOutputError(msg)
    return verdict


@pytest.fixture
def misread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Runtime, str]:
    """An ended batch about half of whose verdicts an older parser could not read."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "batch", n_students=4, n_anchors=9, settings=ONE_WAVE)
    with monkeypatch.context() as older:
        older.setattr(reading, "parse_verdict", _old_parser)
        batch_id = run_to_end(runtime, folder)
    return runtime, batch_id


def _rows(runtime: Runtime, sql: str) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows(sql)


def test_what_would_change_is_said_and_nothing_is_changed(misread: tuple[Runtime, str]) -> None:
    """A person decides with the numbers in hand."""
    runtime, batch_id = misread
    before = _rows(runtime, "SELECT * FROM attempts ORDER BY ALL")
    n_failed = sum(row["outcome"] == "invalid_output" for row in before)

    found = reparse(runtime, batch_id)

    assert (found.n_read, found.n_unread, found.is_applied) == (78, 0, False)
    assert len(found.changes) == found.n_comparisons == n_failed
    assert found.kinds == {"invalid_output → succeeded (A)": n_failed}
    assert _rows(runtime, "SELECT * FROM attempts ORDER BY ALL") == before


def test_a_better_parser_turns_a_failed_batch_into_grades_without_buying_anything(
    misread: tuple[Runtime, str],
) -> None:
    """Scores, decision and grades come from the usual steps; the money stays as it was."""
    runtime, batch_id = misread
    money = _rows(runtime, "SELECT * FROM ledger ORDER BY submission_key, kind")
    jobs = _rows(runtime, "SELECT submission_key, provider_job_id, billed_usd FROM provider_jobs")
    state = _rows(runtime, "SELECT state, end_reason FROM batches")

    found = reparse(runtime, batch_id, apply=True)

    assert state == [{"state": "failed", "end_reason": "low_success_rate"}]
    assert (found.state, found.end_reason) == ("succeeded", "single_wave_complete")
    assert len(_rows(runtime, "FROM comparisons WHERE status = 'succeeded'")) == 78
    assert len(_rows(runtime, "FROM v_grades")) == 4
    assert _rows(runtime, "SELECT * FROM ledger ORDER BY submission_key, kind") == money
    assert (
        _rows(runtime, "SELECT submission_key, provider_job_id, billed_usd FROM provider_jobs")
        == jobs
    )


def test_what_was_read_before_is_kept(misread: tuple[Runtime, str]) -> None:
    """The earlier outcome, the earlier comparison and the earlier decision can all be looked up."""
    runtime, batch_id = misread
    before = _rows(runtime, "SELECT * FROM attempts WHERE outcome = 'invalid_output'")

    reparse(runtime, batch_id, apply=True)

    kept = _rows(runtime, "SELECT * FROM earlier_outcomes ORDER BY comparison_id")
    (decision,) = _rows(runtime, "SELECT details FROM wave_decisions")
    assert {row["comparison_id"] for row in kept} == {row["comparison_id"] for row in before}
    assert {row["attempt_row"]["outcome"] for row in kept} == {"invalid_output"}
    assert {row["comparison_row"]["status"] for row in kept} == {"failed"}
    assert decision["details"]["earlier_decision"]["reason"] == "low_success_rate"


def test_reading_anew_twice_changes_nothing_more(misread: tuple[Runtime, str]) -> None:
    """The same parser says the same."""
    runtime, batch_id = misread
    reparse(runtime, batch_id, apply=True)

    again = reparse(runtime, batch_id, apply=True)

    assert (again.changes, again.n_comparisons) == ((), 0)
    assert {row["revision"] for row in _rows(runtime, "FROM earlier_outcomes")} == {1}


def test_a_stricter_parser_takes_verdicts_back_and_asks_nothing_again(
    misread: tuple[Runtime, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong to count counts no more; the raw replies are there to change one's mind."""
    runtime, batch_id = misread
    reparse(runtime, batch_id, apply=True)

    with monkeypatch.context() as older:
        older.setattr(reading, "parse_verdict", _old_parser)
        found = reparse(runtime, batch_id, apply=True)

    assert (found.state, found.end_reason) == ("failed", "low_success_rate")
    assert set(found.kinds) == {"succeeded (A) → invalid_output"}
    assert {row["revision"] for row in _rows(runtime, "FROM earlier_outcomes")} == {1, 2}
    assert len(_rows(runtime, "FROM attempts")) == 78


def test_archived_callbacks_are_read_where_they_are(misread: tuple[Runtime, str]) -> None:
    """Moving them into Parquet was never meant to lose them."""
    runtime, batch_id = misread
    archive_callbacks(runtime.store, ended_before=datetime(2999, 1, 1, tzinfo=UTC))

    found = reparse(runtime, batch_id)

    assert (found.n_read, found.n_unread) == (78, 0)


def test_callbacks_that_are_gone_leave_their_outcomes_alone(misread: tuple[Runtime, str]) -> None:
    """Having nothing to read is no reason to call a verdict missing."""
    runtime, batch_id = misread
    with runtime.store.write() as db:
        db.execute("DELETE FROM callbacks")

    found = reparse(runtime, batch_id, apply=True)

    assert (found.n_read, found.n_unread, found.changes) == (0, 78, ())


def test_reading_anew_takes_no_key_and_no_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked anything: who reads old replies need not be who may spend."""
    folder = write_batch(tmp_path / "batch", n_students=4, settings=ONE_JUDGE)
    (folder / "judges").mkdir()
    with served_emulator(tmp_path / "provider") as address:
        judge = {
            "name": "mine",
            "provider": "openai",
            "model": "gpt-4.1-mini-2025-04-14",
            "base_url": f"{address}/v1",
            "key_variable": "CJ_TEST_KEY",
        }
        (folder / "judges" / "mine.yaml").write_text(yaml.safe_dump(judge))
        with monkeypatch.context() as older:
            older.setattr(reading, "parse_verdict", _old_parser)
            batch_id = run_to_end(open_engine(tmp_path / "home", {"CJ_TEST_KEY": "k"}), folder)

    keyless = open_engine(tmp_path / "home")
    found = reparse(keyless, batch_id, apply=True)

    assert (found.n_read, found.state) == (6, "succeeded")
    assert set(found.kinds) == {"invalid_output → succeeded (A)"}
    assert len(_rows(keyless, "FROM comparisons WHERE status = 'succeeded'")) == 6

"""Replies become outcomes and bills, whatever the size of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.providers.base import Provider, RawLine
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import TEST_RUN, ManualClock, open_engine, run_to_end, write_batch

PANEL = ["quality", "quality-messages", "quality-gemini"]
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


class _WithoutUsage(Runtime):
    """An runtime whose provider's answers do not say what they cost; all else is as it was."""

    def provider(self, judge: Any) -> Any:
        """Return the provider with the usage taken out of its answers."""
        return _SilentProvider(super().provider(judge))


class _SilentProvider:
    """A provider whose rows carry no usage."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the lines without the usage in them."""
        for line in self._inner.collect(job_id):
            row = json.loads(line.text)
            del row["response"]["body"]["usage"]
            yield RawLine(line.source, line.line, json.dumps(row))


def _judged(
    tmp_path: Path,
    faults: list[dict[str, Any]],
    kind: type[Runtime] = Runtime,
    n_students: int = 3,
    **settings: Any,
) -> Runtime:
    """Have every pair judged until nothing is tried again, while things go wrong."""
    home, clock = tmp_path / "home", ManualClock()
    home.mkdir()
    runtime = kind(FileStore.in_memory(), home, {}, TEST_RUN, clock=clock)
    change_settings(EmulatorConfig.from_environment({}, home), faults=faults)
    given = {"judges": ["quality"], "all_at_once": True, "min_resampling_net_size": 2}
    given["max_resampling_passes_for_regular_net"] = 0
    folder = write_batch(tmp_path / "batch", n_students=n_students, settings=given | settings)
    batch_id = ingest(runtime, folder).batch_id
    while True:
        with runtime.store.read() as db:
            step = next_step(db, batch_id, clock())
        if step is NextStep.DECIDE:
            return runtime
        take_next_step(runtime, batch_id)
        clock.sleep(60)


def _outcomes_by_judge(runtime: Runtime) -> dict[str, set[tuple[str, ...]]]:
    """Return what became of a judge's comparisons, attempt by attempt."""
    found: dict[str, set[tuple[str, ...]]] = {}
    with runtime.store.read() as db:
        for row in db.rows(
            "SELECT j.name, list(a.outcome ORDER BY a.attempt) AS outcomes"
            " FROM attempts a JOIN judges j USING (judge_id) GROUP BY j.name, a.comparison_id"
        ):
            found.setdefault(row["name"], set()).add(tuple(row["outcomes"]))
    return found


def test_what_a_judge_did_twice_is_not_tried_a_third_time(tmp_path: Path) -> None:
    """A judge that refused, was filtered or ran out of room twice would do so for ever."""
    faults = [
        {"kind": "refusal", "on": "openai*"},
        {"kind": "truncated_answer", "on": "anthropic*"},
        {"kind": "content_filter", "on": "gemini*"},
    ]

    runtime = _judged(
        tmp_path, faults, judges=PANEL, max_attempts=4, max_answers_without_verdict=100
    )

    assert _outcomes_by_judge(runtime) == {
        "quality": {("refusal",) * 2},
        "quality-messages": {("truncated",) * 2},
        "quality-gemini": {("content_filter",) * 2},
    }


def test_what_may_pass_is_tried_as_often_as_the_settings_say(tmp_path: Path) -> None:
    """An answer in a wrong shape and a server's own trouble may pass; a wrong request does not."""
    faults = [
        {"kind": "invalid_output", "on": "openai*"},
        {"kind": "status_400", "on": "anthropic*"},
        {"kind": "status_500", "on": "gemini*"},
    ]

    runtime = _judged(
        tmp_path, faults, judges=PANEL, max_attempts=4, max_answers_without_verdict=100
    )

    assert _outcomes_by_judge(runtime) == {
        "quality": {("invalid_output",) * 4},
        "quality-messages": {("provider_error",)},
        "quality-gemini": {("provider_error",) * 4},
    }


def test_no_comparison_is_tried_more_than_twice_its_limit_whatever_the_causes(
    tmp_path: Path,
) -> None:
    """Each cause stays within its own limit of three; together they end at six."""
    faults = [
        {"kind": "expires", "share": 0.0, "at": [1, 2]},
        {"kind": "is_cancelled", "share": 0.0, "at": [3, 4]},
        {"kind": "invalid_output"},
    ]

    runtime = _judged(tmp_path, faults, max_attempts=3)

    causes = ("expired", "expired", "cancelled", "cancelled", "invalid_output", "invalid_output")
    assert _outcomes_by_judge(runtime) == {"quality": {causes}}


@pytest.mark.parametrize(
    ("mode", "share"), [("per_request", 1), ("serial_bundle", 1), ("provider_batch_api", 0.5)]
)
def test_only_a_providers_batches_have_the_batch_price(
    tmp_path: Path, mode: str, share: float
) -> None:
    """The emulated model costs 1 USD a million tokens read and 4 USD written; batches half."""
    runtime = _judged(tmp_path, [], llm_batching_mode=mode)

    with runtime.store.read() as db:
        attempts = db.rows("SELECT tokens_prompt, tokens_completion, cost_usd FROM attempts")
        bill = db.one("SELECT sum(usd) AS usd FROM ledger WHERE kind = 'billed'")
    full = [(row["tokens_prompt"] + 4 * row["tokens_completion"]) / 1e6 for row in attempts]
    assert len(full) == 3
    assert min(full) > 0
    assert [row["cost_usd"] for row in attempts] == pytest.approx([share * usd for usd in full])
    assert bill is not None
    assert bill["usd"] == pytest.approx(share * sum(full))


def test_answers_without_a_verdict_and_without_usage_are_billed_at_their_worst(
    tmp_path: Path,
) -> None:
    """The model wrote something, so it was paid for, though nobody says how much."""
    kinds = ("refusal", "content_filter", "truncated_answer", "invalid_output")
    faults = [{"kind": kind, "at": [row]} for row, kind in enumerate(kinds, start=1)]

    runtime = _judged(tmp_path, faults, _WithoutUsage, n_students=4, max_attempts=1)

    with runtime.store.read() as db:
        attempts = db.rows("SELECT outcome, cost_usd, reserved_usd FROM attempts")
        bill = db.one("SELECT sum(usd) AS usd FROM ledger WHERE kind = 'billed'")
    assert {row["outcome"] for row in attempts} == {
        "succeeded",
        "refusal",
        "content_filter",
        "truncated",
        "invalid_output",
    }
    assert all(row["cost_usd"] == row["reserved_usd"] > 0 for row in attempts)
    assert bill is not None
    assert bill["usd"] == pytest.approx(sum(row["reserved_usd"] for row in attempts))

"""Money adds up: estimated, reserved, billed, in doubt, and what the provider itself counts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.checks import claims
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.providers.base import Provider, RawLine
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.spending import spending
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, run_to_end, write_batch

_SETTINGS = {"judges": ["quality"], "all_at_once": True, "max_attempts": 1}


class Meddled:
    """A provider some of whose answers are changed on their way; all else is as it was."""

    def __init__(
        self,
        provider: Provider,
        change: Callable[[Iterator[RawLine]], Iterator[RawLine]],
    ) -> None:
        self._provider, self._change = provider, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the lines as changed."""
        return self._change(self._provider.collect(job_id))


def _meddle(runtime: Runtime, **how: Any) -> None:
    judge = load_judge("quality")
    runtime._providers[judge.judge_id] = Meddled(runtime.provider(judge), **how)


def _history(runtime: Runtime, batch_id: str) -> BatchHistory:
    with runtime.store.read() as db:
        return read_history(db, batch_id)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four essays, asked all at once."""
    return write_batch(tmp_path / "spring", n_students=4, settings=_SETTINGS)


def test_a_jobs_own_usage_agrees_with_the_bill_of_its_rows(runtime: Runtime, folder: Path) -> None:
    """Two counts of one thing, taken at different places: the provider's job, and our rows."""
    history = _history(runtime, run_to_end(runtime, folder))

    spent = spending(history.jobs)
    assert spent.provider_usd == pytest.approx(spent.billed_usd)
    assert spent.billed_usd > 0
    assert claims.bills_agree_with_providers(history).holds


def test_estimate_and_bill_lie_within_the_reservation(runtime: Runtime, folder: Path) -> None:
    """The reservation is the worst case of the same requests."""
    spent = spending(_history(runtime, run_to_end(runtime, folder)).jobs)

    assert spent.estimated_usd is not None
    assert 0 < spent.estimated_usd < spent.reserved_usd
    assert spent.billed_usd < spent.reserved_usd
    assert spent.still_reserved_usd == 0


def test_what_a_provider_counts_beyond_its_rows_is_in_doubt(runtime: Runtime, folder: Path) -> None:
    """A row that never came may have been paid for: the job's own usage says that it was."""
    _meddle(runtime, change=lambda lines: (line for line in lines if line.line > 1))

    history = _history(runtime, run_to_end(runtime, folder, incomplete_after_s=0.2))

    spent = spending(history.jobs)
    assert spent.difference_usd is not None
    assert 0 < spent.difference_usd <= spent.possible_usd
    finding = claims.bills_agree_with_providers(history)
    assert not finding.holds
    assert "in 1, by +0.000" in finding.statement


def _without_usage(lines: Iterator[RawLine]) -> Iterator[RawLine]:
    for line in lines:
        row = json.loads(line.text)
        del row["response"]["body"]["usage"]
        yield RawLine(line.source, line.line, json.dumps(row))


def test_an_answer_that_tells_no_tokens_is_billed_at_its_worst(
    runtime: Runtime, folder: Path
) -> None:
    """A price of nothing would be a guess, and the cheapest one."""
    _meddle(runtime, change=_without_usage)

    history = _history(runtime, run_to_end(runtime, folder))

    assert all(row["cost_usd"] == row["reserved_usd"] > 0 for row in history.attempts)
    assert not any(row["has_usage"] for row in history.attempts)
    finding = claims.bills_agree_with_providers(history)
    assert f"{len(history.attempts)} answers reported no tokens" in finding.statement


def test_a_call_whose_reply_was_lost_counts_as_possible_cost(
    runtime: Runtime, folder: Path
) -> None:
    """It is asked again and both may be billed: one by its usage, the lost one at its worst."""
    fault = {"kind": "lost_reply", "on": "*chat.create", "at": [1]}
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=[fault])

    batch_id = run_to_end(runtime, folder, llm_batching_mode_override="serial_bundle")

    history = _history(runtime, batch_id)
    lost = max(row["reserved_usd"] for row in history.attempts)
    assert spending(history.jobs).possible_usd == pytest.approx(lost, rel=0.1)
    assert all(row["outcome"] == "succeeded" for row in history.attempts)


def test_possible_cost_counts_against_the_spend_cap(tmp_path: Path, folder: Path) -> None:
    """A cap that forgets what may have been paid is no cap."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "capped", clock=clock)
    batch_id = ingest(runtime, folder, explicit={"spend_cap_usd": 1.0}).batch_id
    with runtime.store.write() as db:
        entry = {"batch_id": batch_id, "submission_key": "k", "judge_id": "j"}
        db.insert("ledger", [entry | {"kind": "possible", "usd": 0.999, "entered_at": clock()}])
    plan_wave(runtime, batch_id)

    submitted = submit_wave(runtime, batch_id)

    assert submitted.refused_for_spend_cap


_OWL = """
name: owl
provider: emulator
model: quality
template: more-convincing-1
price:
  input: 1
  output: 1
  hours: [{from: "16:30", to: "00:30", times: 0.5}]
  source: a price list
  as_of: 2026-01-01
"""


@pytest.mark.parametrize(
    ("mode", "hour", "share"),
    [("per_request", 8, 1.0), ("per_request", 20, 0.5), ("provider_batch_api", 20, 1.0)],
)
def test_single_calls_are_billed_by_the_hour_where_the_price_changes(
    tmp_path: Path, mode: str, hour: int, share: float
) -> None:
    """To the token, below what was reserved; a batch has one price all day."""
    clock = ManualClock()
    clock.now = clock.now.replace(hour=hour)
    runtime = open_engine(tmp_path / "home", clock=clock)
    settings = _SETTINGS | {"judges": ["owl"], "llm_batching_mode": mode}
    folder = write_batch(tmp_path / "batch", n_students=4, settings=settings)
    (folder / "judges").mkdir()
    (folder / "judges" / "owl.yaml").write_text(_OWL)

    batch_id = run_to_end(runtime, folder)

    with runtime.store.read() as db:
        row = db.one("SELECT sum(tokens_prompt + tokens_completion) AS n FROM attempts")
    money = spending(_history(runtime, batch_id).jobs)
    assert row is not None
    assert row["n"] > 0
    assert money.billed_usd == pytest.approx(row["n"] / 1e6 * share)

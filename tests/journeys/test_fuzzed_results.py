"""Whatever comes back of a shard: nothing is lost, nothing counts twice, every row has an outcome.

`make nightly` tries 100,000 results; here some thousands are tried, the same ones each time.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import cost_usd
from cj_pipeline.provider_jobs.ledger import JobState
from cj_pipeline.provider_jobs.replies import read_or_missing
from cj_pipeline.providers.base import JobOutcome, Parser, Provider, RawLine
from cj_pipeline.providers.registry import open_parser
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave, matched_callbacks
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore
from tests.cj_pipeline.providers.test_openai import openai_provider
from tests.support.batches import open_engine, write_batch
from tests.support.fuzzed_results import DIALECTS, KEY, FuzzedResult, fuzzed_result, verdict
from tests.support.jobs import provider_job
from tests.support.nightly import many

JOB = provider_job(submission_key=KEY, state=JobState.ENDED, outcome=JobOutcome.COMPLETED)


@pytest.mark.parametrize("judge_name", DIALECTS)
def test_every_request_has_one_outcome_whatever_comes(judge_name: str) -> None:
    """Matching and reading, as collecting does them, over results in every state of disrepair."""
    judge = load_judge(judge_name)
    parse = open_parser(judge)

    for number in range(many(750, 25_000)):
        case = fuzzed_result(judge_name, number)
        _check(case, parse, judge, f"{judge_name}:{number}")


def _check(case: FuzzedResult, parse: Parser, judge: Any, label: str) -> None:
    rows = list(matched_callbacks(parse, JOB, case.lines, case.asked))
    matched = [row for row in rows if row["kind"] == "matched"]
    bodies = {row["custom_id"]: row["body"] for row in matched}

    # Nothing that came is dropped, and nothing counts twice.
    assert [(row["source"], row["line"], row["body"]) for row in rows] == [
        dataclasses.astuple(line) for line in case.lines
    ], label
    assert len(bodies) == len(matched), label
    assert set(bodies) <= case.asked, label
    for row in rows:
        known = row["custom_id"] in case.asked
        assert (row["kind"] in {"matched", "duplicate"}) == known, label

    # Every request has one outcome, and the right one.
    outcomes = {}
    for name in case.asked:
        read = read_or_missing(parse, judge, JOB, bodies.get(name))
        expected = case.expected[name]
        outcomes[name] = read.outcome
        assert read.outcome in expected.outcomes, (label, name, read)
        assert (read.verdict is not None) == (read.outcome is RequestOutcome.SUCCEEDED), label
        if expected.winner is not None and read.verdict is not None:
            assert read.verdict.winner == expected.winner, (label, name)
        usage = read.reply.usage if read.reply else None
        if expected.is_paid is not None:
            assert (usage is not None) == expected.is_paid, (label, name, read)
        if usage is not None:
            assert cost_usd(judge.price, usage, batched=True) >= 0, label
    assert sum(Counter(outcomes.values()).values()) == len(case.asked), label


class Redelivered(Runtime):
    """An engine whose provider delivers other lines than those that were really made."""

    def provider(self, judge: Any) -> Any:
        """Return the provider with its results exchanged."""
        return Delivers(super().provider(judge), self.environment["lines"])


class Delivers:
    """A provider that delivers the lines it is given, and is otherwise itself."""

    def __init__(self, inner: Provider, lines: Any) -> None:
        self._inner, self._lines = inner, lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield the lines, whatever was asked for."""
        return iter(self._lines)

    def discard(self, job_id: str, file_ids: Any) -> None:
        """Keep everything: it is collected again."""


@pytest.mark.parametrize("judge_name", DIALECTS)
def test_the_store_accounts_for_every_row_whatever_comes(judge_name: str, tmp_path: Path) -> None:
    """The same through the whole step: callbacks, attempts, comparisons, reservation and bill."""
    runtime = open_engine(tmp_path / "home")
    runtime = dataclasses.replace(runtime, store=FileStore.in_memory())
    settings = {"judges": [judge_name], "all_at_once": True, "max_pairwise_comparisons": 12}
    folder = write_batch(tmp_path / "batch", n_students=7, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    with runtime.store.read() as db:
        names = [r["custom_id"] for r in db.rows("SELECT custom_id FROM attempts ORDER BY 1")]
        (job,) = db.rows("SELECT * FROM provider_jobs")

    for number in range(many(10, 500)):
        case = fuzzed_result(judge_name, number)
        # Every other time the provider counts as failed what it does not send.
        _as_just_ended(runtime, n_failed=job["n_requests"] if number % 2 else None)
        # The case's names are exchanged for the batch's; those it has no row for are missing.
        pairs = list(zip(sorted(case.asked), names, strict=False))
        lines = tuple(_renamed(line, pairs) for line in case.lines)
        collected = collect_wave(_delivering(runtime, lines), batch_id)
        _check_store(runtime, collected.outcomes, len(lines), f"{judge_name}:{number}")


def _delivering(runtime: Runtime, lines: tuple[RawLine, ...]) -> Runtime:
    return Redelivered(
        runtime.store,
        runtime.home,
        {**runtime.environment, "lines": lines},
        runtime.run_environment,
    )


def _renamed(line: RawLine, pairs: list[tuple[str, str]]) -> RawLine:
    text = line.text
    for theirs, ours in pairs:
        text = text.replace(theirs, ours)
    return dataclasses.replace(line, text=text)


def _as_just_ended(runtime: Runtime, n_failed: int | None) -> None:
    with runtime.store.write() as db:
        db.execute("DELETE FROM callbacks")
        db.execute("DELETE FROM comparisons")
        db.execute("DELETE FROM ledger WHERE kind <> 'reserved'")
        db.execute("UPDATE attempts SET outcome = NULL, cost_usd = NULL, in_doubt_usd = NULL")
        db.execute(
            "UPDATE provider_jobs SET state = 'ended', outcome = 'completed', billed_usd = NULL,"
            " ended_at = now(), n_completed = NULL, n_failed = ?, incomplete_since = NULL,"
            " n_in_doubt = NULL, possible_usd = NULL, next_poll_at = NULL, waiting_for = NULL",
            [n_failed],
        )


def _check_store(runtime: Runtime, outcomes: Any, n_lines: int, label: str) -> None:
    with runtime.store.read() as db:
        (row,) = db.rows("FROM v_row_outcomes")
        came = db.one("SELECT count(*) AS n FROM callbacks")
        money = db.one(
            "SELECT sum(usd) FILTER (kind = 'billed') AS billed,"
            " sum(usd) FILTER (kind = 'reserved') - sum(usd) FILTER (kind = 'released') AS open,"
            " (SELECT coalesce(sum(cost_usd), 0) FROM attempts) AS rows_cost FROM ledger"
        )
        doubt = db.one(
            "SELECT n_in_doubt AS n, possible_usd AS usd,"
            " (SELECT count(in_doubt_usd) FROM attempts) AS n_rows,"
            " (SELECT coalesce(sum(in_doubt_usd), 0) FROM attempts) AS rows_usd"
            " FROM provider_jobs"
        )
        verdicts = db.one(
            "SELECT count(*) AS n, count(DISTINCT comparison_id) AS once FROM comparisons"
            " WHERE status = 'succeeded'"
        )
    assert came is not None
    assert money is not None
    assert doubt is not None
    assert verdicts is not None
    kinds = {outcome.value: row[outcome.value] for outcome in RequestOutcome}
    assert came["n"] == n_lines, label
    assert sum(kinds.values()) == sum(outcomes.values()), label
    assert row["requested"] == sum(kinds.values()) + row["open"], label
    # What may have been paid for and is not here is open and in doubt, and nothing else is.
    assert (row["state"], bool(row["open"])) in {("settled", False), ("incomplete", True)}, label
    assert (doubt["n"] or 0, doubt["n_rows"]) == (row["open"], row["open"]), label
    assert (doubt["usd"] or 0) == pytest.approx(doubt["rows_usd"]), label
    assert bool(doubt["usd"]) == bool(row["open"]), label
    assert verdicts["n"] == verdicts["once"] == row["succeeded"], label
    assert money["billed"] == pytest.approx(money["rows_cost"]), label
    assert money["open"] == 0, label


def test_every_way_of_naming_result_files_brings_home_what_there_is() -> None:
    """An id may be missing, empty, late, or one for both files; a file may be empty or cut off."""
    good = json.dumps(DIALECTS["quality"]("one", {"text": verdict("A")}))
    bad = json.dumps(DIALECTS["quality"]("two", {"status": 400}))
    contents = {"full": f"{good}\n{bad}\n", "good": good, "bad": f"{bad}\n", "none": ""}
    n_cases = 0
    for output in (None, "", "full", "good", "none"):
        for error in (None, "", "full", "bad", "none"):
            for status in ("completed", "expired", "cancelled", "failed"):
                provider = openai_provider(_server(status, output, error, contents))
                came = Counter(line.text for line in provider.collect("batch_1"))

                files = {name for name in (output, error) if name}
                texts = [text for name in files for text in contents[name].splitlines()]
                assert came == Counter(texts), (status, output, error)
                n_cases += 1
    assert n_cases == 100


def _server(status: str, output: str | None, error: str | None, contents: dict[str, str]) -> Any:
    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path.endswith("/content"):
            return httpx2.Response(200, text=contents[path.split("/")[-2]])
        if "/files/" in path:
            return httpx2.Response(200, json={"bytes": len(contents[path.split("/")[-1]])})
        batch = {
            "id": "batch_1",
            "status": status,
            f"{status}_at": 1,
            "output_file_id": output,
            "error_file_id": error,
            "request_counts": {"total": 2, "completed": 1, "failed": 1},
        }
        return httpx2.Response(200, json=batch)

    return answer

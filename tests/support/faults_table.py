"""Makes docs/faults.md: runs a batch through every fault at every provider, and reports it.

    python -m tests.support.faults_table > docs/faults.md

Only the names of the faults are written by hand; a test regenerates the rest.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import FinalError
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import advance_to_end, go_on
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.poll import poll
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import open_engine, write_batch

_FIXED = "Once that is fixed, the same command continues"
_ABOUT_JOBS = re.compile(r"\d+ provider jobs? .*?, for [\d.]+ \w+(, next look in [\d.]+ \w+)?")
PROVIDERS = {"OpenAI": "quality", "Anthropic": "quality-messages", "Gemini": "quality-gemini"}
N_COMPARISONS = 6
SETTINGS = {
    "all_at_once": True,
    "max_resampling_passes_for_regular_net": 0,
    "stall_after_s": 4 * 3600,
    "canary_requests": 0,
}


@dataclass(frozen=True)
class Case:
    """A fault as the table names it, and as the emulator is told it; for some providers only."""

    section: str
    what: str
    fault: Mapping[str, Any]
    only: tuple[str, ...] = tuple(PROVIDERS)


_CREATE = {"on": "*batches.create", "at": [1]}
_UPLOAD = {"on": "*files.create", "at": [1]}
_POLL = {"on": "*batches.retrieve", "at": [1]}
_RESULTS = {
    "OpenAI": {"on": "*files.content", "at": [1]},
    "Anthropic": {"on": "*batches.results", "at": [1]},
    "Gemini": {"on": "*batches.retrieve", "at": [2]},
}


def _cases(
    section: str,
    *faults: tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], tuple[str, ...]],
) -> Iterator[Case]:
    for fault in faults:
        yield Case(section, *fault)


def _fault(kind: str, where: Mapping[str, Any] | None = None, **more: Any) -> Mapping[str, Any]:
    return {"kind": kind, **(where or {}), **more}


_OPENAI = ("OpenAI",)
_BUSY = {"status": 429, "retry_after": "700"}
_AT_FIRST, _SECOND = {"at": [1]}, {"at": [2]}

CASES = (
    *_cases(
        "upload",
        ("reply lost after the file was stored", _fault("lost_reply", _UPLOAD), _OPENAI),
        ("request lost on its way", _fault("lost_request", _UPLOAD), _OPENAI),
    ),
    *_cases(
        "create",
        ("reply lost after the job was created", _fault("lost_reply", _CREATE)),
        ("request lost on its way", _fault("lost_request", _CREATE)),
        ("no answer in time; the job was created", _fault("hang", _CREATE, after_commit=True)),
        ("reply cut off", _fault("truncated", _CREATE)),
        ("reply is not JSON", _fault("malformed", _CREATE)),
        (
            "504 from a gateway; the job was created",
            _fault("status", _CREATE, status=504, after_commit=True),
        ),
        ("429 with Retry-After: 700", _fault("status", _CREATE, **_BUSY)),
        ("400: the request is rejected", _fault("status", on="*batches.create", status=400)),
        ("401: the key is rejected", _fault("status", on="*batches.create", status=401)),
        ("the account has no credit left", _fault("out_of_credit", on="*batches.create")),
    ),
    *_cases(
        "poll",
        ("429 with Retry-After: 700", _fault("status", _POLL, **_BUSY)),
        ("503", _fault("status", _POLL, status=503)),
        ("no answer in time", _fault("hang", _POLL)),
        ("answer is not JSON", _fault("malformed", _POLL)),
    ),
    *_cases(
        "job",
        ("expires before its rows are done", _fault("expires", _AT_FIRST)),
        ("cancelled by someone else before that", _fault("is_cancelled", _AT_FIRST)),
        (
            "the account's credit is used up",
            _fault("fails", word="billing_hard_limit_reached"),
            _OPENAI,
        ),
        (
            "the provider's queue is full",
            _fault("fails", _AT_FIRST, word="token_limit_exceeded"),
            _OPENAI,
        ),
        ("its input is wrong", _fault("fails", word="invalid_json_line"), _OPENAI),
        (
            "fails when half of its rows are done",
            _fault("fails_half_way", _AT_FIRST, word="internal_error"),
            _OPENAI,
        ),
        ("never ends", _fault("stuck")),
        ("its counts are zero, and all rows come", _fault("counts", word="zero")),
        ("ids of result files come late", _fault("late_file_ids", seconds=120), _OPENAI),
        ("ids of result files are empty strings", _fault("empty_file_ids"), _OPENAI),
    ),
    *_cases(
        "results",
        ("download cut off", _fault("truncated", share=0.4)),
        ("503", _fault("status", status=503)),
        ("403", _fault("status", status=403)),
        ("404", _fault("status", status=404)),
        ("half of the rows, cut at a line's end", _fault("short_body")),
        ("cut within a line", _fault("short_body", at_line_end=False, share=0.6)),
        ("an empty file", _fault("short_body", share=0)),
        ("a sign-in page with status 200", _fault("web_page")),
        ("a byte order mark first", _fault("byte_order_mark")),
    ),
    *_cases(
        "row",
        ("missing, but charged", _fault("missing", _SECOND)),
        ("missing, and counted as failed", _fault("missing", _SECOND, counted_as="failed")),
        ("without the id of its request", _fault("keyless", _SECOND)),
        ("usage is null", _fault("usage_null", _SECOND)),
        ("usage is empty", _fault("usage_empty", _SECOND)),
        ("usage is zeros", _fault("usage_zero", _SECOND)),
        ("usage is text", _fault("usage_text", _SECOND)),
        ("usage does not add up", _fault("usage_adds_up_wrong", _SECOND)),
        ("usage is a thousand times too large", _fault("usage_too_large", _SECOND)),
        ("from another model", _fault("other_model", _SECOND)),
        ("twice, identical", _fault("duplicated", _SECOND)),
        ("twice, with different winners", _fault("contradicted", _SECOND)),
        ("for a request that was never sent", _fault("foreign", _SECOND)),
        ("cut in half", _fault("garbled", _SECOND)),
        ("400 with `error: null`", _fault("status_400", _SECOND)),
        ("429", _fault("status_429", _SECOND)),
        ("no credit left for it", _fault("row_without_credit", _SECOND)),
        ("500", _fault("status_500", _SECOND)),
        ("failed without an error message", _fault("no_error_told", _SECOND)),
        ("body is a string of JSON", _fault("body_as_string", _SECOND), _OPENAI),
        ("the judge refuses", _fault("refusal", _SECOND)),
        ("the answer is cut off", _fault("truncated_answer", _SECOND)),
        ("a filter stops the answer", _fault("content_filter", _SECOND)),
        ("the answer contains no verdict", _fault("invalid_output", _SECOND)),
    ),
)

SECTIONS = {
    "upload": "Uploading a shard",
    "create": "Creating a job",
    "poll": "Polling a job",
    "job": "While the job runs",
    "results": "Downloading results",
    "row": "One row of the first job's results",
}


@dataclass(frozen=True)
class Came:
    """What came of a batch: at the provider, in the ledger, and before a person's eyes."""

    n_jobs: int
    n_paid_jobs: int
    n_submissions: int
    n_paid_twice: int
    outcomes: Mapping[str, int]
    n_open: int
    n_verdicts: int
    ending: str
    told: tuple[str, ...]

    @property
    def happens(self) -> str:
        """The provider's books and ours, in words."""
        rows = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in self.outcomes.items())
        jobs = "no job" if not self.n_jobs else f"{self.n_jobs} job{'s'[: self.n_jobs > 1]}"
        return f"{jobs}; {rows or 'nothing is recorded'}"

    @property
    def seen(self) -> str:
        """What a person is shown: how it ended, and what was said on the way."""
        return ". ".join([self.ending, *self.told]) + ("." if self.told else "")


class Clock:
    """The real time, and how far it was put forward; the emulator's with it.

    The longer a batch has waited, the longer it sleeps at once: rows are missed for six hours.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        self.ahead = timedelta()
        self._client = in_process_client(config)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def sleep(self, seconds: float) -> None:
        """Let time pass, here and there."""
        seconds = max(seconds, self.ahead.total_seconds() / 3)
        self.ahead += timedelta(seconds=seconds)
        self._client.post("http://emulator.invalid/emulator/clock", json={"seconds": seconds})


def what_comes(case: Case, provider: str, folder: Path) -> Came:
    """Run a batch of six comparisons through one fault."""
    fault = {**case.fault, **(_RESULTS[provider] if case.section == "results" else {})}
    config = EmulatorConfig.from_environment({}, folder)
    folder.mkdir(parents=True)
    change_settings(config, faults=[fault], in_order=True)
    clock = Clock(config)
    runtime = replace(open_engine(folder, clock=clock), store=FileStore.in_memory())
    settings = {**SETTINGS, "judges": [PROVIDERS[provider]]}
    if case.fault["kind"] == "stuck":
        settings["stall_after_s"] = 300  # which nothing else comes near to, and is soon over
    batch = write_batch(folder / "batch", n_students=4, settings=settings)
    batch_id = ingest(runtime, batch).batch_id
    told: list[str] = []
    try:
        told += _executed(runtime, batch_id, clock)
    except FinalError as error:
        told.append(f"The command stops: {_masked(str(error))}")
        change_settings(config, faults=[])
        go_on(runtime, batch_id)
        told += [*_executed(runtime, batch_id, clock), _FIXED]
    _bring_home_the_rest(runtime, batch_id, clock)
    return _came(runtime, config, told)


def _executed(runtime: Runtime, batch_id: str, clock: Clock) -> Iterator[str]:
    """Take a batch to its decision, as `cj execute` does; yield what it says on the way."""
    for step in advance_to_end(runtime, batch_id, pause_s=120, sleep=clock.sleep):
        yield from _news(step.waits_for)
        if _state(runtime) != "running":
            return


def _bring_home_the_rest(runtime: Runtime, batch_id: str, clock: Clock) -> None:
    """Let a day pass in which the sensors look after what a batch no longer waits for."""
    for _ in range(24):
        with runtime.store.read() as db:
            if not db.rows("FROM provider_jobs WHERE state NOT IN ('settled', 'refused')"):
                return
        clock.sleep(3600)
        poll(runtime)
        collect_wave(runtime, batch_id)


def _state(runtime: Runtime) -> str:
    with runtime.store.read() as db:
        return str(db.rows("SELECT state FROM batches")[0]["state"])


def _came(runtime: Runtime, config: EmulatorConfig, told: Iterable[str]) -> Came:
    books = in_process_client(config).get("http://emulator.invalid/emulator/audit").json()
    with runtime.store.read() as db:
        batch = db.rows("SELECT state, end_reason FROM batches")[0]
        outcomes = db.rows(
            "SELECT attempt, outcome, count(*) AS n FROM attempts WHERE outcome IS NOT NULL"
            " GROUP BY attempt, outcome ORDER BY attempt, outcome = 'succeeded', outcome"
        )
        n_open = db.rows("SELECT coalesce(sum(open), 0) AS n FROM v_row_outcomes")[0]["n"]
        n_verdicts = db.rows("SELECT count(*) AS n FROM comparisons WHERE status = 'succeeded'")
        submissions = db.rows("SELECT submission_key, state FROM provider_jobs")
        duplicates = db.rows("SELECT 1 AS one FROM duplicate_jobs")
    counts: Counter[str] = Counter()
    for row in outcomes:
        again = f" on attempt {row['attempt']}" if row["attempt"] > 1 else ""
        counts[row["outcome"] + again] += row["n"]
    ending = f"{batch['state']}" + (f": `{batch['end_reason']}`" if batch["end_reason"] else "")
    return Came(
        n_jobs=len(books["jobs"]),
        n_paid_jobs=sum(job["paid"] > 0 for job in books["jobs"]),
        n_submissions=len(submissions) + len(duplicates),
        n_paid_twice=len(books["paid_twice"]),
        outcomes=dict(counts),
        n_open=int(n_open),
        n_verdicts=n_verdicts[0]["n"],
        ending=ending,
        told=tuple(dict.fromkeys(told)),
    )


def _news(waits_for: str) -> Iterator[str]:
    """Yield what a person is told beside that a job is being waited for."""
    for line in waits_for.splitlines():
        about_jobs = re.match(
            r"\d+ provider jobs? .*?(?:, for [\d.]+ \w+)(?:, next look[^:]*)?", line
        )
        words = line[about_jobs.end() :].removeprefix(": ") if about_jobs else line
        if words:
            yield _masked(words)


def _masked(words: str) -> str:
    """Return words without what differs from run to run."""
    words = re.sub(r"\b(batches/|batch_|msgbatch_|file-|files/)[\w-]+", r"\1…", words)
    words = re.sub(r"\b[0-9a-f]{16}\b", "…", words)
    words = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "…", words)
    words = words.replace("|", "/").replace("emulator ", "the provider ").strip()
    return words[:1].upper() + words[1:].removesuffix(".")


def page(folder: Path) -> str:
    """Return the page, having run every batch it tells of."""
    return "\n".join([_HEAD, *(part(section, folder)[0] for section in SECTIONS)])


def part(section: str, folder: Path) -> tuple[str, list[Came]]:
    """Return one section of the page, and what came of each of its batches."""
    lines = ["", f"## {SECTIONS[section]}", "", _COLUMNS]
    everything: list[Came] = []
    cases = [case for case in CASES if case.section == section]
    asked = [(case, provider) for case in cases for provider in case.only]
    folders = [folder / f"{section}-{number}" for number in range(len(asked))]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as processes:
        all_came = list(processes.map(what_comes, *zip(*asked, strict=True), folders))
    for case in cases:
        came = {
            provider: came
            for (other, provider), came in zip(asked, all_came, strict=True)
            if other is case
        }
        everything += came.values()
        for cells, names in _alike(came).items():
            who = "all three" if len(names) == len(PROVIDERS) else ", ".join(names)
            lines.append(f"| {case.what} | {who} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines), everything


def _alike(came: Mapping[str, Came]) -> dict[tuple[str, str], list[str]]:
    alike: dict[tuple[str, str], list[str]] = {}
    for provider, told in came.items():
        alike.setdefault((told.happens, told.seen), []).append(provider)
    return alike


_COLUMNS = """| Fault | Provider | What happens | What you see |
|---|---|---|---|"""

_HEAD = """# Provider faults and what happens

What happens to a batch if a provider loses a reply, rejects a key, lets a job expire or returns a
broken row? Each line below is the result of a real run: a batch of four essays and six comparisons,
sent as provider batches to the [emulator](emulator.md), with this one fault.

- **What happens** counts the jobs that exist at the provider and the outcome of each request,
  including what was collected after the batch had ended.
- **What you see** is how the batch ended, and the messages of `cj execute`. If the command stops
  for something that a person has to fix, it is fixed and the command is run again.

For every line a test checks that each request has one outcome, that nothing was paid twice, and
that there is one job per submission. The page is generated by
`python -m tests.support.faults_table > docs/faults.md`; the test fails if it differs.

Killed processes are not in the table, because there is nothing to see: the next process continues
from [the ledger](ledger.md)."""


if __name__ == "__main__":
    # The page alone goes to where the output is sent; what the batches log does not.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory() as home:
        print(page(Path(home)))

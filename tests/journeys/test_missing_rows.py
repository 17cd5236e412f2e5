"""Rows that a provider counts as done and does not send: waited for, never bought again unasked.

The provider is the emulator; what it made, was paid for and deleted is read from its books.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.checks import claims
from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import AccountRefusedError, SettingsError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import Usage, cost_usd
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.operations.resubmit import resubmit
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.watchdog import stalled_batches
from tests.support.batches import ManualClock, open_engine, write_batch

OWN_SHAPES = ("quality-mistral", "quality-xai", "quality-openrouter")
JUDGES = ("quality", "quality-messages", "quality-gemini", *OWN_SHAPES)
RESULTS = {
    "quality": "*files.content",
    "quality-messages": "*batches.results",
    "quality-gemini": "*batches.retrieve",
    "quality-mistral": "*files.content",
    "quality-xai": "*batches.results",
    "quality-openrouter": "*batches.retrieve",
}
WITH_STATUS = ("quality-gemini", "quality-openrouter")
"""Those whose results come with the job's status."""

FIRST = {judge: [2] if judge in WITH_STATUS else [1] for judge in JUDGES}
"""Which request for the results is the first."""

SIX_HOURS = 6 * 3600


class Batch:
    """A batch of four essays and six comparisons, its clock, and its provider's books."""

    def __init__(self, folder: Path, judge: str, faults: list[dict[str, Any]], **settings: Any):
        self.clock = ManualClock()
        self.runtime: Runtime = open_engine(folder / "home", clock=self.clock)
        self.runtime.home.mkdir(exist_ok=True)
        self.judge = judge
        self.config = EmulatorConfig.from_environment({}, self.runtime.home)
        self.emulate(faults)
        given = {
            "judges": [judge],
            "all_at_once": True,
            "max_resampling_passes_for_regular_net": 0,
            "canary_requests": 0,
        }
        batch = write_batch(folder / "batch", n_students=4, settings=given | settings)
        self.batch_id = ingest(self.runtime, batch).batch_id

    def emulate(self, faults: list[dict[str, Any]]) -> None:
        """Let other things go wrong from now on."""
        change_settings(self.config, faults=faults, in_order=True)

    def step(self) -> NextStep:
        """Take the next step and return which it was."""
        return take_next_step(self.runtime, self.batch_id).step

    def until_incomplete(self) -> dict[str, Any]:
        """Go on to where rows are missing and return the job."""
        for _ in range(8):
            if any(job["state"] == "incomplete" for job in self.jobs()):
                break
            self.step()
            self.clock.sleep(0.2)
        (job,) = self.jobs()
        return job

    def to_end(self, *, pause_s: float = 1.0, most: int = 400) -> dict[str, Any]:
        """Go on until nothing is to be done and return the batch's row."""
        for _ in range(most):
            if self.step() is NextStep.NOTHING:
                break
            self.clock.sleep(pause_s)
        return self.row("SELECT state, end_reason FROM batches")

    def until_decided(self) -> dict[str, Any]:
        """Go on until the batch has ended, without a report, and return its row."""
        while (batch := self.row("SELECT state, end_reason FROM batches"))["state"] == "running":
            self.step()
            self.clock.sleep(1)
        return batch

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with self.runtime.store.read() as db:
            return db.rows(query)

    def jobs(self) -> list[dict[str, Any]]:
        """Return the ledger's jobs, as they were intended."""
        with self.runtime.store.read() as db:
            return db.rows("SELECT * FROM provider_jobs ORDER BY intended_at, submission_key")

    def row(self, query: str) -> dict[str, Any]:
        """Return the only row of a query."""
        with self.runtime.store.read() as db:
            (found,) = db.rows(query)
        return found

    def books(self) -> dict[str, Any]:
        """Return what was made, paid for and deleted at the provider."""
        client = in_process_client(self.config)
        told: dict[str, Any] = client.get("http://emulator.invalid/emulator/audit").json()
        return told

    def money(self) -> tuple[float, float]:
        """Return what is billed, and what is in doubt."""
        found = self.row(
            "SELECT coalesce(sum(usd) FILTER (kind = 'billed'), 0) AS billed,"
            " coalesce(sum(usd) FILTER (kind = 'possible'), 0) AS in_doubt FROM ledger"
        )
        return found["billed"], found["in_doubt"]

    def sold_usd(self, books: dict[str, Any]) -> float:
        """Return what the provider was paid for, in USD."""
        tokens = books["totals"]["tokens"]
        usage = Usage(tokens["prompt"], tokens["cached"], completion=tokens["completion"])
        return cost_usd(load_judge(self.judge).price, usage, batched=True)

    def n_verdicts(self) -> int:
        """Return how many comparisons have a verdict."""
        query = "SELECT count(*) AS n FROM comparisons WHERE status = 'succeeded'"
        return int(self.row(query)["n"])


def is_deleted(books: dict[str, Any]) -> bool:
    """Whether any job or file was deleted at the provider."""
    return any(each["is_deleted"] for kind in ("jobs", "files") for each in books[kind])


_AT_FIRST: dict[str, dict[str, Any]] = {
    "cut at a line's end": {"kind": "short_body"},
    "cut within a line": {"kind": "short_body", "at_line_end": False, "share": 0.6},
    "empty": {"kind": "short_body", "share": 0},
    "a sign-in page": {"kind": "web_page"},
    "not found": {"kind": "status", "status": 404},
    "busy": {"kind": "status", "status": 503},
}


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        *(("quality", what) for what in _AT_FIRST),
        *(("quality-messages", what) for what in ("cut at a line's end", "a sign-in page")),
        *(("quality-gemini", what) for what in ("cut at a line's end", "cut within a line")),
        *(("quality-mistral", what) for what in ("cut within a line", "a sign-in page")),
        *(("quality-xai", what) for what in ("cut at a line's end", "a sign-in page", "not found")),
        *(("quality-openrouter", what) for what in ("cut at a line's end", "a sign-in page")),
    ],
)
def test_results_that_are_not_whole_at_first_are_collected_again(
    tmp_path: Path, judge: str, what: str
) -> None:
    """Nothing is bought or deleted meanwhile, and in the end all six are there."""
    fault = {**_AT_FIRST[what], "on": RESULTS[judge], "at": FIRST[judge]}
    batch = Batch(tmp_path, judge, [fault])

    job = batch.until_incomplete()
    waits = batch.row("FROM v_batch_waiting")
    billed, in_doubt = batch.money()
    books = batch.books()
    ended = batch.until_decided()

    assert (job["state"], job["waiting_for"]) == ("incomplete", "rows")
    assert (waits["waiting_for"], waits["reason"]) == ("rows", job["error"])
    assert billed + in_doubt >= batch.sold_usd(books) > 0
    assert not is_deleted(books)
    assert ended == {"state": "succeeded", "end_reason": "single_wave_complete"}
    assert (batch.n_verdicts(), len(batch.books()["jobs"])) == (6, 1)
    assert batch.money() == (pytest.approx(batch.sold_usd(books)), 0)


@pytest.mark.parametrize(
    ("judge", "word"),
    [
        *(("quality", "none"), ("quality-messages", "zero"), ("quality-gemini", "none")),
        *((judge, "zero") for judge in OWN_SHAPES),
    ],
)
def test_a_provider_that_counts_nothing_is_asked_again_while_rows_are_missing(
    tmp_path: Path, judge: str, word: str
) -> None:
    """Without counts nobody knows what was paid for; with all rows there, nobody has to."""
    short = {"kind": "short_body", "on": RESULTS[judge], "at": FIRST[judge]}
    batch = Batch(tmp_path, judge, [{"kind": "counts", "word": word}, short])

    job = batch.until_incomplete()
    ended = batch.until_decided()

    assert (job["state"], job["n_in_doubt"]) == ("incomplete", 3)
    assert ended["state"] == "succeeded"
    assert (batch.n_verdicts(), len(batch.books()["jobs"])) == (6, 1)


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        *(("quality", "missing"), ("quality-messages", "garbled"), ("quality-gemini", "keyless")),
        *(("quality-mistral", "garbled"), ("quality-xai", "missing")),
        ("quality-openrouter", "keyless"),
    ],
)
def test_a_row_that_never_comes_is_in_doubt_and_the_batch_goes_on_without_it(
    tmp_path: Path, judge: str, kind: str
) -> None:
    """One of six: the rest is enough. It is not bought again, and nothing is deleted."""
    batch = Batch(tmp_path, judge, [{"kind": kind, "at": [2]}])

    batch.until_incomplete()
    batch.clock.sleep(SIX_HOURS - 60)
    batch.step()
    waits_still = batch.row("SELECT state FROM batches")
    batch.clock.sleep(120)
    ended = batch.until_decided()

    (job,) = batch.jobs()
    billed, in_doubt = batch.money()
    lost = batch.row("SELECT * FROM attempts WHERE outcome = 'missing'")
    assert waits_still == {"state": "running"}
    assert ended == {"state": "succeeded", "end_reason": "single_wave_complete"}
    assert (job["state"], job["n_in_doubt"]) == ("settled", 1)
    assert (lost["error_code"], lost["may_retry"]) == ("in_doubt", False)
    assert in_doubt == lost["in_doubt_usd"] == pytest.approx(lost["reserved_usd"])
    books = batch.books()
    assert billed + in_doubt >= batch.sold_usd(books)
    assert (len(books["jobs"]), batch.n_verdicts()) == (1, 5)
    assert not is_deleted(books)
    with batch.runtime.store.read() as db:
        history = read_history(db, batch.batch_id)
    assert claims.rows_add_up(history).holds
    assert "1 in doubt" in claims.rows_add_up(history).statement
    assert not claims.bills_agree_with_providers(history).holds
    assert claims.bills_agree_with_providers(history).figures["n_rows_in_doubt"] == 1


@pytest.mark.parametrize("judge", JUDGES)
def test_a_row_that_the_provider_counts_as_failed_is_requested_again(
    tmp_path: Path, judge: str
) -> None:
    """It was not paid for, and nobody has to be asked."""
    fault = {"kind": "missing", "at": [2], "counted_as": "failed", "on": "*batches.create"}
    batch = Batch(tmp_path, judge, [fault])
    while not any(job["state"] == "settled" for job in batch.jobs()):
        batch.step()
        batch.clock.sleep(1)
    batch.emulate([])

    ended = batch.until_decided()

    assert ended["state"] == "succeeded"
    assert (batch.n_verdicts(), len(batch.books()["jobs"]), batch.money()[1]) == (6, 2, 0)


@pytest.mark.parametrize("judge", JUDGES)
def test_rows_that_come_after_the_end_are_booked_scored_and_graded_anew(
    tmp_path: Path, judge: str
) -> None:
    """Too few came in time, so the batch stalled; a day later its provider has them all."""
    short = {"kind": "short_body", "on": RESULTS[judge], "share": 0.5}
    batch = Batch(tmp_path, judge, [short], incomplete_after_s=60)

    batch.until_incomplete()
    batch.clock.sleep(120)
    ended = batch.to_end()
    in_doubt_then = batch.money()[1]
    revision = batch.row("SELECT max(revision) AS n FROM grading_reports")["n"]
    batch.emulate([])
    batch.clock.sleep(24 * 3600)
    anew = batch.to_end()

    books = batch.books()
    assert ended == {"state": "failed", "end_reason": "stalled"}
    assert in_doubt_then > 0
    assert anew == {"state": "succeeded", "end_reason": "single_wave_complete"}
    assert batch.row("SELECT max(revision) AS n FROM grading_reports")["n"] == revision + 1
    assert (batch.n_verdicts(), len(books["jobs"])) == (6, 1)
    assert batch.money() == (pytest.approx(batch.sold_usd(books)), 0)
    assert batch.row("SELECT count(*) AS n FROM earlier_outcomes") == {"n": 3}
    assert batch.step() is NextStep.NOTHING


@pytest.mark.parametrize("judge", JUDGES)
def test_a_shard_that_matches_nothing_is_never_bought_again_by_itself(
    tmp_path: Path, judge: str
) -> None:
    """Rows without ids may be the answers, in whatever order: no verdict is read from them."""
    batch = Batch(tmp_path, judge, [{"kind": "keyless"}], incomplete_after_s=60)

    batch.until_incomplete()
    batch.clock.sleep(120)
    ended = batch.until_decided()

    (job,) = batch.jobs()
    assert ended == {"state": "failed", "end_reason": "stalled"}
    assert (job["n_in_doubt"], batch.n_verdicts(), len(batch.books()["jobs"])) == (6, 0, 1)
    assert batch.money()[1] == pytest.approx(job["reserved_usd"])
    assert not is_deleted(batch.books())


@pytest.mark.parametrize("judge", JUDGES[:2])
def test_pairs_in_doubt_are_bought_again_on_a_persons_word(tmp_path: Path, judge: str) -> None:
    """The stalled batch goes on to its end; what the first try may have cost stays in doubt."""
    batch = Batch(tmp_path, judge, [{"kind": "keyless"}], incomplete_after_s=60)
    batch.until_incomplete()
    with pytest.raises(SettingsError, match="still waits for 6 rows"):
        resubmit(batch.runtime, batch.jobs()[0]["submission_key"][:12])
    batch.clock.sleep(120)
    batch.to_end()
    batch.emulate([])
    (job,) = batch.jobs()

    bought = resubmit(batch.runtime, job["provider_job_id"])
    ended = batch.to_end()

    assert (bought.batch_id, bought.n_pairs) == (batch.batch_id, 6)
    assert bought.in_doubt_usd == pytest.approx(job["reserved_usd"])
    assert ended == {"state": "succeeded", "end_reason": "single_wave_complete"}
    books = batch.books()
    assert (batch.n_verdicts(), len(books["jobs"])) == (6, 2)
    billed, in_doubt = batch.money()
    assert in_doubt == pytest.approx(job["reserved_usd"])
    assert billed + in_doubt >= batch.sold_usd(books)
    with pytest.raises(SettingsError, match="was requested again"):
        resubmit(batch.runtime, job["provider_job_id"])
    with pytest.raises(SettingsError, match="names no job"):
        resubmit(batch.runtime, "0123456789")


@pytest.mark.parametrize(
    ("judge", "status"), [("quality", 401), ("quality-messages", 404), ("quality-gemini", 403)]
)
def test_a_refusal_takes_nothing_from_a_cancelled_batch(
    tmp_path: Path, judge: str, status: int
) -> None:
    """What the job had finished is paid for; a replica that lags must not cost it."""
    batch = Batch(tmp_path, judge, [])
    batch.step()
    cancel(batch.runtime, batch.batch_id)
    at = [1, 2] if judge != "quality-gemini" else [1, 2, 3]
    batch.emulate([{"kind": "status", "status": status, "on": RESULTS[judge], "at": at}])

    job = batch.until_incomplete()
    books = batch.books()
    batch.clock.sleep(60)
    ended = batch.until_decided()
    # Where the key could not even see the job, the batch ends first. Its rows come later: then they
    # are booked, and count for nothing more.
    is_unseen = judge == "quality-gemini"
    for _ in range(40):
        if batch.jobs()[0]["state"] == "settled":
            break
        batch.clock.sleep(600)
        poll(batch.runtime)
        batch.step()

    assert str(status) in job["error"]
    assert not is_deleted(books)
    assert ended == {"state": "cancelled", "end_reason": "cancelled"}
    billed, in_doubt = batch.money()
    assert (batch.n_verdicts(), in_doubt) == (0 if is_unseen else 6, 0)
    assert billed >= batch.sold_usd(books) > 0


@pytest.mark.parametrize("judge", JUDGES[:2])
def test_a_refused_key_stops_the_command_and_keeps_the_results(tmp_path: Path, judge: str) -> None:
    """A person has to act; after six hours as well, and then all rows are there."""
    batch = Batch(tmp_path, judge, [])
    batch.step()
    while next(job["state"] for job in batch.jobs()) != "ended":
        batch.step()
    batch.emulate([{"kind": "status", "status": 403, "on": RESULTS[judge]}])

    for _ in range(2):
        with pytest.raises(AccountRefusedError, match="This is a fault of the emulator"):
            batch.step()
        batch.clock.sleep(SIX_HOURS)
    (job,) = batch.jobs()
    batch.emulate([])
    ended = batch.until_decided()

    assert (job["state"], job["waiting_for"]) == ("incomplete", "key")
    assert ended["state"] == "succeeded"
    assert (batch.n_verdicts(), len(batch.books()["jobs"])) == (6, 1)


def test_missing_rows_have_a_time_of_their_own(tmp_path: Path) -> None:
    """A batch that waits for them has not stalled, however impatient it is otherwise."""
    batch = Batch(tmp_path, "quality", [{"kind": "missing", "at": [2]}], stall_after_s=60)

    batch.until_incomplete()
    batch.clock.sleep(3600)

    with batch.runtime.store.read() as db:
        assert stalled_batches(db, batch.clock()) == []
        assert next_step(db, batch.batch_id, batch.clock()) is NextStep.COLLECT


@pytest.mark.parametrize("judge", JUDGES)
def test_an_empty_file_each_time_does_not_get_round_the_spend_cap(
    tmp_path: Path, judge: str
) -> None:
    """What may have been paid counts against the cap, and the claim says so."""
    empty = {"kind": "short_body", "share": 0, "on": RESULTS[judge]}
    batch = Batch(tmp_path, judge, [empty], incomplete_after_s=60, spend_cap_usd=0.04)

    batch.until_incomplete()
    batch.clock.sleep(120)
    batch.until_decided()

    with batch.runtime.store.read() as db:
        history = read_history(db, batch.batch_id)
    billed, in_doubt = batch.money()
    assert len(batch.books()["jobs"]) == 1
    assert 0 < billed + in_doubt <= 0.04
    assert claims.spend_is_within_cap(history).figures["possible_usd"] == in_doubt


def test_a_refused_error_file_keeps_the_job_although_its_output_came(tmp_path: Path) -> None:
    """One of two files says 404: what it holds is not known, so nothing is settled or deleted."""
    batch = Batch(
        tmp_path,
        "quality",
        [
            {"kind": "status_400", "at": [2]},
            {"kind": "status", "status": 404, "on": RESULTS["quality"], "at": [2, 4]},
        ],
    )

    job = batch.until_incomplete()
    deleted = is_deleted(batch.books())
    ended = batch.until_decided()

    outcomes = batch.rows("SELECT outcome, count(*) AS n FROM attempts GROUP BY 1 ORDER BY 1")
    assert job["state"] == "incomplete"
    assert "404" in job["error"]
    assert not deleted
    assert ended["state"] == "succeeded"
    assert {row["outcome"]: row["n"] for row in outcomes} == {"provider_error": 1, "succeeded": 5}
    assert batch.books()["totals"]["requests_paid"] == 5
    assert batch.money()[1] == 0


@pytest.mark.parametrize("judge", JUDGES)
def test_where_one_missing_row_failed_and_one_is_owed_neither_is_bought_again(
    tmp_path: Path, judge: str
) -> None:
    """The counts say how many of each there are, and not which is which: both are in doubt."""
    batch = Batch(
        tmp_path,
        judge,
        [
            {"kind": "missing", "at": [1], "counted_as": "completed"},
            {"kind": "missing", "at": [2], "counted_as": "failed"},
            {"kind": "status_400", "at": [3]},
        ],
        incomplete_after_s=600,
    )

    batch.to_end(pause_s=120)

    billed, in_doubt = batch.money()
    outcomes = batch.rows(
        "SELECT attempt, coalesce(error_code, outcome) AS what, count(*) AS n FROM attempts"
        " WHERE outcome <> 'provider_error' GROUP BY ALL ORDER BY what"
    )
    books = batch.books()
    assert outcomes == [
        {"attempt": 1, "what": "in_doubt", "n": 2},
        {"attempt": 1, "what": "succeeded", "n": 3},
    ]
    assert books["totals"]["requests_paid"] == 4
    assert billed + in_doubt >= batch.sold_usd(books)

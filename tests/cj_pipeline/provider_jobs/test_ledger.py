"""The states of a provider job: which way each may go, and that nothing else writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import (
    AccountRefusedError,
    AmbiguousSubmissionError,
    CJError,
    IllegalTransitionError,
    OtherAccountError,
    ProviderUnavailableError,
)
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.ledger import (
    COLLECTABLE,
    DONE,
    OPEN,
    TRANSITIONS,
    UNSENT,
    AwaitedRows,
    JobState,
    PollRecord,
    ProviderJob,
)
from cj_pipeline.providers.base import JobOutcome, JobStatus
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Lease, Session
from tests.support.jobs import INTENDED_AT, provider_job

NOW = INTENDED_AT + timedelta(minutes=5)
ROOT = Path(__file__).parents[3]
BUSY = ProviderUnavailableError("busy")
POLLED = PollRecord(NOW, NOW, None, None, cancel_sent=False)
RUNS = JobStatus("job-1", "running", "in_progress", n_completed=1, n_failed=0)
OVER = JobStatus("job-1", "ended", "completed", JobOutcome.COMPLETED, n_completed=2, n_failed=0)
MISSING = AwaitedRows(1, "one row is missing", WaitingFor.ROWS, NOW + timedelta(seconds=1))
FULL = JobStatus("job-1", "ended", "failed", JobOutcome.FAILED, error_code="token_limit_exceeded")

MOVES: dict[str, Callable[[Session, ProviderJob], object]] = {
    "bind_account": lambda db, job: ledger.bind_account(db, job.submission_key, "other"),
    "see_from_account": lambda db, job: ledger.see_from_account(db, job.submission_key, "other"),
    "mark_uploaded": lambda db, job: ledger.mark_uploaded(db, job.submission_key, "file-1", "sha"),
    "begin_create": lambda db, job: ledger.begin_create(db, job.submission_key, NOW),
    "mark_submitted": lambda db, job: ledger.mark_submitted(
        db, job.submission_key, "job-1", NOW, None
    ),
    "mark_adopted": lambda db, job: ledger.mark_adopted(db, job.submission_key, "job-1", NOW, None),
    "mark_ambiguous": lambda db, job: ledger.mark_ambiguous(
        db, job.submission_key, BUSY, NOW, wait=timedelta(minutes=1)
    ),
    "postpone": lambda db, job: ledger.postpone(
        db, job.submission_key, BUSY, NOW, wait=timedelta(minutes=1)
    ),
    "defer": lambda db, job: ledger.defer(db, job, BUSY, NOW, wait=timedelta(minutes=1)),
    "refuse": lambda db, job: ledger.refuse(db, job.submission_key, BUSY, NOW),
    "mark_running": lambda db, job: ledger.mark_running(db, job, RUNS, POLLED, NOW),
    "record_poll_failure": lambda db, job: ledger.record_poll_failure(
        db, job, "busy", NOW, wait=timedelta(minutes=1), waits_for=None
    ),
    "requeue": lambda db, job: ledger.requeue(db, job, FULL, NOW, wait=timedelta(minutes=1)),
    "request_cancel": lambda db, job: ledger.request_cancel(db, job.submission_key, NOW),
    "mark_ended": lambda db, job: ledger.mark_ended(db, job, OVER, POLLED, NOW),
    "give_up": lambda db, job: ledger.give_up(db, job, "nobody may see it", NOW),
    "mark_calls_ended": lambda db, job: ledger.mark_calls_ended(
        db, job.submission_key, JobOutcome.COMPLETED, None, content_sha256="sha", now=NOW
    ),
    "mark_collected": lambda db, job: ledger.mark_collected(db, job.submission_key, NOW),
    "await_rows": lambda db, job: ledger.await_rows(db, job.submission_key, 0.125, MISSING, NOW),
    "settle": lambda db, job: ledger.settle(db, job.submission_key, 0.25),
    "record_late_rows": lambda db, job: ledger.record_late_rows(
        db, job.submission_key, 0.375, MISSING
    ),
    "rebill": lambda db, job: ledger.rebill(db, job.submission_key, 0.125),
    "record_providers_count": lambda db, job: ledger.record_providers_count(
        db, job.submission_key, 0.3
    ),
    "add_possible_usd": lambda db, job: ledger.add_possible_usd(db, job.submission_key, 0.1),
    "set_possible_usd": lambda db, job: ledger.set_possible_usd(db, job.submission_key, 0.2),
}
"""Every transition with plain arguments, under its own name."""

ALLOWED = {
    "bind_account": ("intent uploaded ambiguous", "intent", "intent"),
    "see_from_account": (
        "submitted adopted running ended collected incomplete settled",
        "intent running",
        None,
    ),
    "mark_uploaded": ("intent uploaded ambiguous", "", "uploaded"),
    "begin_create": ("uploaded", "", None),
    "withdraw_create": ("uploaded", "", None),
    "mark_submitted": ("uploaded ambiguous", "", "submitted"),
    "mark_adopted": ("intent uploaded ambiguous", "", "adopted"),
    "mark_ambiguous": ("intent uploaded ambiguous", "", "ambiguous"),
    "postpone": ("intent uploaded ambiguous", "intent running", None),
    "defer": ("intent uploaded ambiguous", "", None),
    "refuse": ("intent uploaded ambiguous", "intent running", "refused"),
    "mark_running": ("submitted adopted running", "", "running"),
    "record_poll_failure": ("submitted adopted running", "", None),
    "requeue": ("submitted adopted running", "", "uploaded"),
    "request_cancel": ("submitted adopted running", "", None),
    "mark_ended": ("submitted adopted running", "", "ended"),
    "give_up": ("submitted adopted running", "", "ended"),
    "mark_calls_ended": ("", "intent running", "ended"),
    "mark_collected": ("ended incomplete", "ended", "collected"),
    "await_rows": ("collected", "", "incomplete"),
    "record_late_rows": ("settled", "", None),
    "settle": ("collected", "collected", "settled"),
    "rebill": ("settled", "settled", None),
    "record_providers_count": (
        "ended collected incomplete settled",
        "ended collected incomplete settled",
        None,
    ),
    "set_possible_usd": ("ended collected incomplete settled", "", None),
    "add_possible_usd": (" ".join(JobState), " ".join(JobState), None),
}
"""What is promised: from which states, for a provider's jobs and for single calls, and where to."""

_keys = count()


@pytest.fixture(scope="module")
def store() -> FileStore:
    """One store for all tests: each has jobs of its own."""
    return FileStore.in_memory()


def recorded(db: Session, **values: Any) -> ProviderJob:
    """Return a job that the store has in the state given."""
    job = provider_job(submission_key=f"{next(_keys):064x}", **values)
    db.insert("provider_jobs", [job])
    return job


def now_of(db: Session, job: ProviderJob) -> ProviderJob:
    """Return a job as the store has it now."""
    found = ledger.find_job(db, job.submission_key)
    assert found is not None
    return found


def is_allowed(name: str, state: JobState, *, is_batched: bool) -> bool:
    """Return what is promised of a transition."""
    return state in ALLOWED[name][0 if is_batched else 1].split()


def test_the_table_of_transitions_is_the_one_promised() -> None:
    """What the documentation and the callers rely on is written down twice, on purpose."""
    table = {name: (set(move.jobs), set(move.calls), move.to) for name, move in TRANSITIONS.items()}

    assert table == {
        name: (set(jobs.split()), set(calls.split()), to)
        for name, (jobs, calls, to) in ALLOWED.items()
    }


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("mode", ["provider_batch_api", "per_request"])
def test_each_transition_is_made_from_its_states_and_refused_from_all_others(
    store: FileStore, name: str, mode: str
) -> None:
    """A job that another process moved on is never dragged back, and a refusal changes nothing."""
    is_batched = mode == "provider_batch_api"
    for state in JobState:
        with store.write() as db:
            job = recorded(db, state=state, batching_mode=mode)
            if is_allowed(name, state, is_batched=is_batched):
                MOVES[name](db, job)
                assert now_of(db, job).state == (ALLOWED[name][2] or state)
                assert now_of(db, job) != job
            else:
                with pytest.raises(IllegalTransitionError, match=f"is {state.value} and cannot"):
                    MOVES[name](db, job)
                assert now_of(db, job) == job


def test_a_job_nobody_recorded_cannot_go_anywhere(store: FileStore) -> None:
    """A wrong key is an error, not an update of nothing."""
    with store.write() as db, pytest.raises(IllegalTransitionError, match="no provider job"):
        ledger.mark_collected(db, "f" * 64, NOW)


def test_only_intents_are_recorded(store: FileStore) -> None:
    """Everything begins before anything has left."""
    with store.write() as db, pytest.raises(IllegalTransitionError):
        ledger.record_intents(db, [provider_job(state=JobState.SUBMITTED)])


class Walk(RuleBasedStateMachine):
    """One job, moved about at random as processes that know little of each other would."""

    store = FileStore.in_memory()

    @initialize(is_batched=st.booleans())
    def intend(self, is_batched: bool) -> None:
        """Begin with an intent."""
        mode = "provider_batch_api" if is_batched else "serial_bundle"
        job = provider_job(submission_key=f"{next(_keys):064x}", batching_mode=mode)
        with self.store.write() as db:
            ledger.record_intents(db, [job])
        self.job, self.is_batched, self.path = job, is_batched, [JobState.INTENT]

    @rule(name=st.sampled_from(sorted(MOVES)))
    def move(self, name: str) -> None:
        """Try any transition, with the row as it was read some time before."""
        before = self.now()
        may = is_allowed(name, before.state, is_batched=self.is_batched)
        if name == "bind_account":
            may = may and before.create_begun_at is None
        with self.store.write() as db:
            try:
                MOVES[name](db, before)
            except IllegalTransitionError:
                assert not may
                return
        assert may
        self.path.append(self.now().state)

    @rule()
    def call(self) -> None:
        """Renewing a lease on calls never moves a job that has ended or a provider's job."""
        before = self.now()
        with self.store.write() as db:
            ledger.renew_calls(db, [self.job.submission_key], NOW)
        if self.is_batched or before.state in COLLECTABLE | DONE:
            assert self.now() == before

    @rule()
    def lease(self) -> None:
        """Whoever finds a job unsent and free may take it; nothing else of it changes."""
        before = self.now()
        with self.store.write() as db:
            taken = ledger.acquire_leases(
                db, self.job.batch_id, NOW + timedelta(hours=1), only=self.job.submission_key
            )
            ledger.restore_lease(db, before)
        assert all(job.state in UNSENT | {JobState.RUNNING} for job in taken)
        assert self.now() == before

    @invariant()
    def it_is_whole(self) -> None:
        """What a state promises is in the row."""
        job = self.now()
        if job.is_batched and job.state is not JobState.REFUSED:
            assert (job.provider_job_id is None) == job.is_unsent
        if job.state in OPEN and job.is_batched:
            assert job.lease_owner is None
        if job.state in DONE:
            assert job.billed_usd is not None
        if job.state is JobState.REFUSED:
            assert job.billed_usd == 0
            assert not set(self.path) & {JobState.SETTLED, JobState.COLLECTED}
        if job.state is JobState.INCOMPLETE:
            assert job.billed_usd is not None
            assert job.n_in_doubt
            assert job.next_poll_at is not None
            assert job.incomplete_since is not None
        if job.state is JobState.SETTLED:
            assert JobState.ENDED in self.path
            assert JobState.COLLECTED in self.path

    def now(self) -> ProviderJob:
        """Return the job as the store has it."""
        with self.store.read() as db:
            return now_of(db, self.job)


class TestWalk(Walk.TestCase):  # type: ignore[name-defined, misc]
    """Any order of legal and illegal moves leaves a job whole."""

    settings = settings(max_examples=25, stateful_step_count=20)


def test_the_view_gives_each_state_the_phase_of_its_set(store: FileStore) -> None:
    """SQL goes by the phase: a state that is missing there would be in none."""
    phases = dict.fromkeys(UNSENT, "unsent")
    phases |= dict.fromkeys(OPEN, "open")
    phases |= dict.fromkeys(COLLECTABLE, "collectable")
    phases |= dict.fromkeys(DONE, "done")

    with store.write() as db:
        for state in JobState:
            for mode in ("provider_batch_api", "per_request", "serial_bundle"):
                job = recorded(db, state=state, batching_mode=mode)
                row = db.one("FROM v_job_phases WHERE submission_key = ?", [job.submission_key])
                assert row is not None
                is_call = state in OPEN and mode != "provider_batch_api"
                assert row["phase"] == ("calling" if is_call else phases[state])
                assert ProviderJob.from_row(row) == job


def test_a_row_with_a_word_of_its_own_is_no_job() -> None:
    """A state nobody knows is an error where it is read, not a job that is never touched."""
    row = {name: getattr(provider_job(), name) for name in ledger._COLUMNS}

    with pytest.raises(ValueError, match="scheduling"):
        ProviderJob.from_row(row | {"state": "scheduling"})
    with pytest.raises(KeyError):
        ProviderJob.from_row({name: row[name] for name in row if name != "account"})


def test_a_create_that_may_be_under_way_binds_a_job_to_its_account(store: FileStore) -> None:
    """Only what surely never left may go out from another one."""
    with store.write() as db:
        job = recorded(db, state=JobState.UPLOADED)
        ledger.begin_create(db, job.submission_key, NOW)

        with pytest.raises(IllegalTransitionError, match="it may exist"):
            ledger.bind_account(db, job.submission_key, "other")


def test_who_takes_a_batch_over_takes_its_jobs_over_too(store: FileStore) -> None:
    """Else they would stay with a dead host for ten minutes; its lease on the batch ran out."""
    earlier, later = Lease("taken-over", "host-a", 7), Lease("taken-over", "host-b", 8)
    with store.write() as db:
        job = recorded(db, batch_id="taken-over")
        until = NOW + ledger.LEASE
        recorded(db, batch_id="taken-over", lease_owner="elsewhere:1", lease_until=until)
        db.lease = earlier
        ledger.acquire_leases(db, job.batch_id, NOW, only=job.submission_key)
        assert now_of(db, job).lease_owner == ledger.owner(db)
        assert ledger.is_leased(now_of(db, job), NOW, earlier)
        assert ledger.is_leased(now_of(db, job), NOW)

        db.lease = later
        taken = ledger.acquire_leases(db, job.batch_id, NOW)

    assert [each.submission_key for each in taken] == [job.submission_key]


def test_a_create_that_another_process_began_is_not_withdrawn(store: FileStore) -> None:
    """Ours came to nothing; theirs may exist."""
    with store.write() as db:
        job = recorded(db, state=JobState.UPLOADED, create_begun_at=NOW, lease_owner="elsewhere:1")
        ledger.withdraw_create(db, job.submission_key)
        theirs = now_of(db, job)
        own = recorded(
            db, state=JobState.UPLOADED, create_begun_at=NOW, lease_owner=ledger.this_process()
        )
        ledger.withdraw_create(db, own.submission_key)

        assert theirs.create_begun_at == NOW
        assert now_of(db, own).create_begun_at is None


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (AccountRefusedError("no such key"), "key"),
        (OtherAccountError("begun with another key"), "key"),
        (AmbiguousSubmissionError("the list has no end"), "person"),
        (ProviderUnavailableError("busy"), None),
    ],
)
def test_what_a_job_waits_for_follows_from_its_error(
    store: FileStore, error: CJError, word: str | None
) -> None:
    """One word says who can help; without one, time does."""
    with store.write() as db:
        job = recorded(db)
        ledger.postpone(db, job.submission_key, error, NOW, wait=timedelta(minutes=5))

        assert now_of(db, job).waiting_for == word


def test_a_batch_waits_for_the_most_urgent_of_what_its_jobs_wait_for(store: FileStore) -> None:
    """A refused key is told before a full queue; jobs that are done wait for nothing."""
    with store.write() as db:
        for word, state in (("room", "intent"), ("key", "intent"), ("credit", "refused")):
            recorded(
                db,
                batch_id="waits",
                state=JobState(state),
                waiting_for=WaitingFor(word),
                error=f"for {word}",
                next_poll_at=NOW,
            )
        row = db.one("FROM v_batch_waiting WHERE batch_id = 'waits'")

    assert row == {
        "batch_id": "waits",
        "waiting_for": "key",
        "reason": "for key",
        "n_waits": 2,
        "next_try_at": NOW,
    }


def test_every_word_for_waiting_is_known_to_the_view(store: FileStore) -> None:
    """A word the view does not know would keep a batch waiting in silence."""
    with store.write() as db:
        for word in WaitingFor:
            recorded(db, batch_id=f"waits-{word.value}", waiting_for=word)
        rows = db.rows("FROM v_batch_waiting WHERE batch_id LIKE 'waits-%'")

    assert {row["waiting_for"] for row in rows} == set(WaitingFor)


def test_polls_without_news_touch_only_jobs_that_are_open(store: FileStore) -> None:
    """One statement for hundreds; a job that ended meanwhile keeps its end."""
    later = NOW + timedelta(seconds=10)
    with store.write() as db:
        runs = recorded(db, state=JobState.RUNNING, provider_job_id="job-1")
        over = recorded(db, state=JobState.ENDED, provider_job_id="job-2")
        due = {runs.submission_key: later, over.submission_key: later}
        ledger.record_unchanged(db, due, NOW)

        assert now_of(db, over) == over
        assert now_of(db, runs) == replace(runs, polled_at=NOW, next_poll_at=later, n_polls=1)


@pytest.mark.parametrize(
    ("table", "owner"), [("provider_jobs", "ledger.py"), ("ledger", "charges.py")]
)
def test_each_of_the_two_tables_has_one_writer(table: str, owner: str) -> None:
    """Who else wrote there would not be bound by what is promised above."""
    writes = re.compile(
        rf"(UPDATE|INSERT INTO|DELETE FROM)\s+{table}\b|\.insert\(\s*\"{table}\"", re.IGNORECASE
    )
    writers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("cj_pipeline", "assets", "resources")
        for path in (ROOT / folder).rglob("*.py")
        if writes.search(path.read_text("utf-8"))
    }

    assert writers == {f"cj_pipeline/provider_jobs/{owner}"}

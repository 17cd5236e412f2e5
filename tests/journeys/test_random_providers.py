"""Whatever a provider does to one job: never bought twice unasked, nothing bought is off the books.

A state machine over the job ledger: the emulator makes and sells, and at every look it behaves
otherwise: it cuts results, refuses them, counts wrongly, or sends all of them; and jobs are created
whose reply is lost, and looked for in lists that do not come. Between the looks time passes, and a
person may act.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cj_pipeline.errors import CJError, SettingsError, TransientError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.operations.resubmit import resubmit
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.next_step import NextStep, next_step
from tests.journeys.test_missing_rows import JUDGES, RESULTS, Batch, is_deleted

MADE = st.fixed_dictionaries(
    {},
    optional={
        "missing": st.sampled_from(["completed", "failed"]),
        "garbled": st.just(None),
        "keyless": st.just(None),
        "usage_empty": st.just(None),
        "counts": st.sampled_from(["none", "zero"]),
        "expires": st.just(None),
        "fails_half_way": st.just(None),
    },
)
"""How the next job is made: what its rows suffer, and what it counts."""

OF_JOBS = {
    "expires": {},
    "fails_half_way": {"on": "openai.batches.create", "word": "internal_error"},
}

SENT = st.sampled_from(["whole", "half", "within a line", "empty", "page", 401, 403, 404, 503])
"""How its results are sent, from now on."""

CREATED = st.sampled_from(["as asked", "lost_reply", "truncated", "malformed", 502, 504])
"""How a job is created from now on: in all cases it is there, and mostly nobody is told."""

LISTED = st.sampled_from(["whole", "truncated", "malformed", 401, 502])
"""How the provider lists its jobs, when one is looked for whose reply was lost."""

N_PAIRS = 6


class RandomProvider(RuleBasedStateMachine):
    """One batch of six comparisons at a provider that does as it likes."""

    folder: Path
    batch: Batch

    @initialize(judge=st.sampled_from(JUDGES), made=MADE, sent=SENT, created=CREATED)
    def begin(self, judge: str, made: dict[str, Any], sent: Any, created: Any) -> None:
        """Take the batch in, and plan what may be bought."""
        self.folder = Path(tempfile.mkdtemp(prefix="random-provider-"))
        self.batch = Batch(self.folder, judge, [], max_attempts=2, incomplete_after_s=3600)
        self.made, self.sent, self.created, self.listed = made, sent, created, "whole"
        self.n_allowed = 0
        self.was_in_doubt: set[str] = set()
        self.behave()

    def behave(self) -> None:
        """Have the emulator do what it is to do from now on."""
        faults: list[dict[str, Any]] = []
        for number, (kind, word) in enumerate(sorted(self.made.items()), start=1):
            fault: dict[str, Any] = {"kind": kind} | OF_JOBS.get(kind, {})
            if kind == "counts":
                fault["word"] = word
            elif kind not in OF_JOBS:
                fault["at"] = [number]
            if kind == "missing":
                fault["counted_as"] = word
            faults.append(fault)
        for call, how in (("*batches.create", self.created), ("*batches.list", self.listed)):
            if isinstance(how, int):
                after = {"after_commit": True} if call == "*batches.create" else {}
                faults.append({"kind": "status", "status": how, "on": call, **after})
            elif how not in ("as asked", "whole"):
                faults.append({"kind": how, "on": call})
        on = {"on": RESULTS[self.batch.judge]}
        match self.sent:
            case "half":
                faults.append({"kind": "short_body", **on})
            case "within a line":
                faults.append({"kind": "short_body", "at_line_end": False, "share": 0.7, **on})
            case "empty":
                faults.append({"kind": "short_body", "share": 0, **on})
            case "page":
                faults.append({"kind": "web_page", **on})
            case int():
                faults.append({"kind": "status", "status": self.sent, **on})
        self.batch.emulate(faults)

    @rule(made=MADE, sent=SENT)
    def change(self, made: dict[str, Any], sent: Any) -> None:
        """Let jobs be made and results be sent otherwise."""
        self.made, self.sent = made, sent
        self.behave()

    @rule(created=CREATED, listed=LISTED)
    def lose(self, created: Any, listed: Any) -> None:
        """Let jobs be created, and be looked for, otherwise."""
        self.created, self.listed = created, listed
        self.behave()

    @rule(n=st.integers(1, 4))
    def go_on(self, n: int) -> None:
        """Take the next steps; what stops the command is told, and nothing is lost by it."""
        for _ in range(n):
            try:
                taken = take_next_step(self.batch.runtime, self.batch.batch_id)
            except CJError:
                return
            if taken.step is NextStep.NOTHING:
                return
            self.batch.clock.sleep(2)

    @rule(seconds=st.sampled_from([5, 600, 3_700, 100_000]))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.batch.clock.sleep(seconds)

    @rule()
    def look_twice(self) -> None:
        """Collect again, as a second process would."""
        for _ in range(2):
            try:
                collect_wave(self.batch.runtime, self.batch.batch_id)
            except CJError:
                return

    @rule()
    def buy_again(self) -> None:
        """A person allows that what is in doubt is bought once more."""
        for job in self.batch.jobs():
            try:
                self.n_allowed += resubmit(self.batch.runtime, job["submission_key"]).n_pairs
            except SettingsError:
                continue

    @rule()
    def give_up(self) -> None:
        """A person ends the batch, seldom."""
        if self.batch.clock.now.second % 7 == 0:
            cancel(self.batch.runtime, self.batch.batch_id)

    @invariant()
    def nothing_is_bought_unasked(self) -> None:
        """A comparison is paid once, and once more per failure the provider owns up to."""
        paid = self.batch.books()["totals"]["requests_paid"]
        rows = self.batch.rows(
            "SELECT coalesce(count(*) FILTER (attempt > 1 AND b.error_code IS DISTINCT FROM"
            " 'resubmitted' AND b.may_retry), 0) AS n FROM attempts a"
            " LEFT JOIN (SELECT comparison_id, attempt + 1 AS attempt, error_code, may_retry"
            " FROM attempts) b USING (comparison_id, attempt)"
        )
        assert paid <= N_PAIRS + self.n_allowed + rows[0]["n"]
        lost = self.batch.rows(
            "SELECT a.comparison_id FROM attempts a JOIN attempts b ON"
            " b.comparison_id = a.comparison_id AND b.attempt > a.attempt"
            " WHERE a.error_code = 'in_doubt' AND b.requested_at > a.completed_at"
        )
        assert not lost, "a pair in doubt was requested again by itself"

    @invariant()
    def nothing_bought_is_off_the_books(self) -> None:
        """Billed, in doubt or still reserved: what was sold is there."""
        found = self.batch.row(
            "SELECT coalesce(sum(CASE kind WHEN 'released' THEN -usd ELSE usd END), 0) AS usd"
            " FROM ledger"
        )
        assert found["usd"] + 1e-12 >= self.batch.sold_usd(self.batch.books())

    @invariant()
    def nothing_is_deleted_before_it_is_stored(self) -> None:
        """What a job is still owed stays at its provider."""
        if not is_deleted(self.batch.books()):
            return
        deleted = {job["job_id"] for job in self.batch.books()["jobs"] if job["is_deleted"]}
        deleted |= {f["job_id"] for f in self.batch.books()["files"] if f["is_deleted"]}
        for job in self.batch.jobs():
            if any(str(job["provider_job_id"]).endswith(str(name)) for name in deleted - {None}):
                assert job["state"] == "settled"
                assert not job["n_in_doubt"]

    @invariant()
    def no_request_is_in_two_jobs(self) -> None:
        """A job whose reply was lost is found again, never made again beside the first."""
        assert self.batch.books()["paid_twice"] == []

    @invariant()
    def every_settled_job_adds_up(self) -> None:
        """Each request of it has one outcome, and what is in doubt bears its amount."""
        wrong = self.batch.rows(
            "FROM v_row_outcomes WHERE state IN ('settled', 'refused') AND open <> 0"
        )
        doubt = self.batch.rows(
            "SELECT p.submission_key FROM provider_jobs p WHERE coalesce(n_in_doubt, 0) <>"
            " (SELECT count(in_doubt_usd) FROM attempts a"
            "  WHERE a.submission_key = p.submission_key)"
        )
        assert not wrong
        assert not doubt

    def teardown(self) -> None:
        """Whatever happened: the batch comes to an end, or waits for a word that says for what."""
        if not hasattr(self, "batch"):
            return
        self.made, self.sent, self.created, self.listed = {}, "whole", "as asked", "whole"
        self.behave()
        for _ in range(60):
            with self.batch.runtime.store.read() as db:
                step = next_step(db, self.batch.batch_id, self.batch.clock())
                row = db.one("SELECT state FROM batches")
            if row != {"state": "running"} and step is not NextStep.COLLECT:
                break
            with suppress(TransientError):
                take_next_step(self.batch.runtime, self.batch.batch_id)
            self.batch.clock.sleep(700)
        assert self.batch.row("SELECT state FROM batches")["state"] != "running"
        shutil.rmtree(self.folder)


class TestRandomProvider(RandomProvider.TestCase):  # type: ignore[name-defined, misc]
    """Any order of looks, waits and changes leaves books that hold."""

    settings = settings(max_examples=10, stateful_step_count=10, deadline=None)

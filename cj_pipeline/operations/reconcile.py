"""What the ledger and the providers say of the same jobs, compared; safe to run at any time.

Only what this store made is ever touched: its keys bear its identity, or the ledger holds the id.
What other stores made, also the one that this home was copied from, is listed apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.adoption import (
    adopt_if_found,
    keep_duplicates,
    settle_duplicates,
)
from cj_pipeline.provider_jobs.ledger import COLLECTABLE, DONE, OPEN, JobState, ProviderJob
from cj_pipeline.provider_jobs.ownership import may_stop_by, require_ours
from cj_pipeline.provider_jobs.poll_schedule import stalled_since
from cj_pipeline.providers.base import JobOutcome, ListedJob, Provider
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.watchdog import EXPIRES_SOON
from cj_pipeline.store.identity import LOOK_BACK, Identity, settle_identity

log = structlog.get_logger()

SHORTEST_KEPT = timedelta(days=29)
"""Anthropic's results go 29 days after creation; taken where the ledger has no date."""

UNSENT_FOR = timedelta(hours=1)
"""What is meant to be sent and is not after this long is worth telling."""

_KEY = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"([0-9a-f]{64})\.jsonl")

Kind = Literal[
    "unreachable",
    "other_credentials",
    "duplicate_job",
    "not_told_to_stop",
    "unknown_job",
    "unknown_file",
    "other_store_job",
    "other_store_file",
    "not_yet_adopted",
    "ambiguous",
    "unsent",
    "stalled_job",
    "missing_job",
    "file_left",
    "results_expire",
    "usage_differs",
]
Mending = Literal["cancel", "delete", "adopt", "collect"]


@dataclass(frozen=True)
class Discrepancy:
    """One thing that ledger and provider do not agree on, and what would mend it.

    Attributes:
        kind: What it is.
        account: Where; see `account_fingerprint`.
        batch_id: Whose; None where no batch of this store is concerned.
        what: The id of the job, the file or the submission.
        problem: In words.
        remedy: What `--fix` does, or a person has to.
        mending: What `repair` does about `what`; None where a person has to.
        submission_key: The submission concerned; None where this store has none.
        needs_consent: Whether the mending is a person's choice: something may be lost by it.
    """

    kind: Kind
    account: str
    batch_id: str | None
    what: str
    problem: str
    remedy: str
    mending: Mending | None = None
    submission_key: str | None = None
    needs_consent: bool = False

    @property
    def is_of_another_store(self) -> bool:
        """Whether it is another store's, and so none of this one's business."""
        return self.kind in {"other_store_job", "other_store_file"}

    @property
    def is_mendable(self) -> bool:
        """Whether `repair` does something about it."""
        return self.mending is not None


def examine(runtime: Runtime) -> list[Discrepancy]:
    """Return everything on which the ledger and the providers differ; nothing of it is changed."""
    now = runtime.clock()
    known = _ledger(runtime, now)
    findings = [finding for job in known.jobs for finding in _by_itself(job, known, now)]
    accounts: dict[str, tuple[Provider, list[ProviderJob]]] = {}
    for job in known.jobs:
        try:
            provider = runtime.provider(known.judges[job.batch_id, job.judge_id])
            accounts.setdefault(provider.account, (provider, []))[1].append(job)
        except CJError as error:
            findings.append(_unreachable(job.account, error))
    for account, (provider, jobs) in sorted(accounts.items()):
        try:
            findings += _compared(provider, jobs, known, now)
        except CJError as error:
            findings.append(_unreachable(account, error))
    return list(dict.fromkeys(_leave_to_others(finding, known) for finding in findings))


def _unreachable(account: str, error: CJError) -> Discrepancy:
    remedy = "fix that, then run `cj doctor` again"
    return Discrepancy("unreachable", account, None, account, str(error), remedy)


def _leave_to_others(finding: Discrepancy, known: _Known) -> Discrepancy:
    """Take the mending from a finding about a job that another store made."""
    job = known.by_key.get(finding.submission_key or "")
    if finding.mending not in {"cancel", "delete"} or job is None or known.may_stop(job):
        return finding
    remedy = "the store that made it may; if this home was moved, run `cj store moved` first"
    return replace(finding, mending=None, remedy=remedy)


def repair(
    runtime: Runtime, findings: Sequence[Discrepancy], *, with_consent: bool = False
) -> list[Discrepancy]:
    """Do what each finding proposes, where it proposes anything; return what was mended.

    Args:
        engine: The pipeline's connections.
        findings: What `examine` found.
        with_consent: Whether a person agreed to what may lose something.
    """
    known = _ledger(runtime, runtime.clock())
    providers = {p.account: p for p in _reachable(runtime, known.judges.values())}
    mended = []
    for finding in findings:
        job = known.by_key.get(finding.submission_key or "")
        provider = providers.get(finding.account)
        if finding.needs_consent and not with_consent:
            continue
        try:
            if job is not None:
                provider = runtime.provider(known.judges[job.batch_id, job.judge_id])
            if provider is None:
                continue
            done = _mend(runtime, _leave_to_others(finding, known), provider, job)
        except CJError as error:
            log.warning("not_mended", what=finding.what, problem=str(error))
            continue
        if done:
            log.info("mended", kind=finding.kind, what=finding.what, batch_id=finding.batch_id)
            mended.append(finding)
    if any(finding.kind == "duplicate_job" for finding in mended):
        settle_duplicates(runtime)
    return mended


def _mend(
    runtime: Runtime, finding: Discrepancy, provider: Provider, job: ProviderJob | None
) -> bool:
    match finding.mending:
        case "delete":
            provider.discard(None, [finding.what])
        case "cancel" if finding.kind == "duplicate_job" and job is not None:
            keep_duplicates(runtime, job, provider, [finding.what])
        case "cancel":
            if job is not None:
                require_ours(runtime, job, provider)
            provider.cancel(finding.what)
            if job is not None and job.provider_job_id == finding.what:
                with runtime.store.write() as db:
                    if ledger.is_in(db, job.submission_key, OPEN):  # or it has been seen to end
                        ledger.request_cancel(db, job.submission_key, runtime.clock())
        case "adopt" if finding.batch_id and finding.submission_key:
            return adopt_if_found(runtime, finding.batch_id, finding.submission_key)
        case "collect" if finding.batch_id:
            poll(runtime, batch_id=finding.batch_id)
            collect_wave(runtime, finding.batch_id)
        case _:
            return False
    return True


@dataclass(frozen=True)
class _Known:
    """What the ledger knows that a provider may still know too.

    `judges` are by batch and judge id; `row_tokens` are the input and output tokens of a job's
    rows, by submission key; `duplicates` are the ids of the duplicates on record. `unwanted` are
    the batches that were cancelled or have ended; `borne` are the keys that adopted jobs bear, by
    the ledger's.
    """

    identity: Identity
    unwanted: frozenset[str]
    borne: Mapping[str, str]
    jobs: tuple[ProviderJob, ...]
    row_tokens: Mapping[str, tuple[int, int]]
    judges: Mapping[tuple[str, str], Judge]
    duplicates: frozenset[str]

    @cached_property
    def by_key(self) -> dict[str, ProviderJob]:
        """The jobs, by every key that one of them may bear."""
        own = {job.submission_key: job for job in self.jobs}
        return {borne: own[key] for key, borne in self.borne.items() if key in own} | own

    def may_stop(self, job: ProviderJob) -> bool:
        """Whether this store may cancel a job and delete what it left."""
        return may_stop_by(self.identity, job, self.borne.get(job.submission_key))


def _ledger(runtime: Runtime, now: datetime) -> _Known:
    identity = settle_identity(runtime.store, now)
    with runtime.store.read() as db:
        borne = {row["submission_key"]: row["borne_key"] for row in db.rows("FROM borne_keys")}
        unwanted = db.rows("FROM batches WHERE state <> 'running' OR cancel_requested")
        jobs = db.rows(
            "SELECT p.*, coalesce(a.tokens_prompt, 0) AS row_tokens_prompt,"
            " coalesce(a.tokens_completion, 0) AS row_tokens_completion FROM provider_jobs p"
            " LEFT JOIN (SELECT submission_key, sum(tokens_prompt) AS tokens_prompt,"
            " sum(tokens_completion) AS tokens_completion FROM attempts GROUP BY ALL) a"
            " USING (submission_key) WHERE batching_mode = 'provider_batch_api'"
            " AND intended_at >= ? ORDER BY intended_at, submission_key",
            [now - LOOK_BACK],
        )
        rows = db.rows("SELECT batch_id, judge_id, definition FROM judges")
        duplicates = frozenset(row["provider_job_id"] for row in db.rows("FROM duplicate_jobs"))
    return _Known(
        identity=identity,
        unwanted=frozenset(row["batch_id"] for row in unwanted),
        borne=borne,
        jobs=tuple(ProviderJob.from_row(row) for row in jobs),
        row_tokens={
            row["submission_key"]: (
                int(row["row_tokens_prompt"]),
                int(row["row_tokens_completion"]),
            )
            for row in jobs
        },
        judges={
            (row["batch_id"], row["judge_id"]): Judge.from_definition(row["definition"])
            for row in rows
        },
        duplicates=duplicates,
    )


def _reachable(runtime: Runtime, judges: Any) -> Iterator[Provider]:
    for judge in judges:
        try:
            yield runtime.provider(judge)
        except CJError as error:
            log.warning("provider_unreachable", judge_id=judge.judge_id, problem=str(error))


def _by_itself(job: ProviderJob, known: _Known, now: datetime) -> Iterator[Discrepancy]:
    """Yield what the ledger alone shows to be wrong with a job."""
    key = job.submission_key
    if job.state is JobState.AMBIGUOUS:
        yield _finding(
            "ambiguous",
            job,
            key,
            f"it is not known whether this submission of {job.n_requests} requests was accepted",
            "look for it and adopt it if it is there",
            mending="adopt",
        )
    elif job.is_unsent and now - job.intended_at > UNSENT_FOR:
        yield _finding(
            "unsent",
            job,
            key,
            f"{job.n_requests} requests were never sent: {job.error or 'not tried yet'}",
            f"`cj execute` the batch '{job.batch_id}' again, or cancel it",
        )
    stalled = stalled_since(job, now) if job.state in OPEN else None
    if job.batch_id in known.unwanted and job.state in OPEN and job.cancel_sent_at is None:
        yield _finding(
            "not_told_to_stop",
            job,
            job.provider_job_id,
            f"its batch has ended, and it was never asked to stop: {job.error or 'not tried yet'}",
            "cancel it, and bill what it had finished",
            mending="cancel",
        )
    elif stalled is not None:
        yield _finding(
            "stalled_job",
            job,
            job.provider_job_id,
            f"no progress since {stalled:%Y-%m-%d %H:%M} UTC",
            "cancel it: what it finished is collected, the rest is retried (--also-cancel)",
            mending="cancel",
            needs_consent=True,
        )
    theirs = (job.provider_tokens_prompt, job.provider_tokens_completion)
    ours = known.row_tokens[job.submission_key]
    if job.state is JobState.SETTLED and theirs[0] is not None and theirs != ours:
        yield _finding(
            "usage_differs",
            job,
            job.provider_job_id,
            f"the provider counts {theirs[0]} + {theirs[1]} tokens, its rows {ours[0]} + {ours[1]}",
            "expect the provider's bill; rows it lost or sent twice explain the difference",
        )
    expiry = job.results_expire_at or job.intended_at + SHORTEST_KEPT
    if job.state in OPEN | COLLECTABLE and now > expiry - EXPIRES_SOON:
        yield _finding(
            "results_expire",
            job,
            job.provider_job_id,
            f"its results have been waiting for weeks; they are deleted on {expiry:%Y-%m-%d}",
            "collect them now",
            mending="collect",
        )


def _compared(
    provider: Provider, jobs: Sequence[ProviderJob], known: _Known, now: datetime
) -> Iterator[Discrepancy]:
    """Yield what one account's lists and the ledger's jobs there disagree on."""
    since = min(job.intended_at for job in jobs)
    if known.identity.jobs_since is not None:
        since = min(since, known.identity.jobs_since)
    listed = list(provider.list_jobs(since))
    for found in listed:
        if found.job_id not in known.duplicates:
            yield from _about_listed(found, known, provider)
    ids = {found.job_id for found in listed}
    unseen = []
    for job in jobs:
        if job.provider_job_id in ids or job.state in DONE:
            continue
        # A job made a moment ago may be missing from a list that lags.
        is_settled_in_lists = now - job.intended_at > timedelta(minutes=15)
        if job.account != provider.account:
            unseen.append(job)
        elif job.state in OPEN and is_settled_in_lists:
            yield _finding(
                "missing_job",
                job,
                job.provider_job_id,
                "the ledger waits for this job, and the provider does not list it",
                "look in the provider's console; if it is gone, cancel the batch",
            )
    for account in sorted({job.account for job in unseen}):
        yield _other_credentials(account, [job for job in unseen if job.account == account])
    yield from _files_left(provider, jobs, known, since)


def _other_credentials(account: str, jobs: Sequence[ProviderJob]) -> Discrepancy:
    return Discrepancy(
        kind="other_credentials",
        account=account,
        batch_id=jobs[0].batch_id,
        what=account,
        problem=f"{len(jobs)} jobs were begun with another key or address, and today's sees none",
        remedy="set the key of that account; nothing is requested again under another",
    )


def _about_listed(found: ListedJob, known: _Known, provider: Provider) -> Iterator[Discrepancy]:
    key = found.submission_key
    if key is None or not _KEY.fullmatch(key):
        return
    job = known.by_key.get(key)
    if job is None:
        # Of a batch that was forgotten a name may stay behind, for ever, with nothing in it.
        is_over = known.identity.made(key) and not found.is_running
        if not (is_over and not provider.keeps_results(found.job_id)):
            yield _unknown_job(found, key, known.identity, provider.account)
    elif job.provider_job_id is None and job.is_unsent:
        yield _finding(
            "not_yet_adopted",
            job,
            found.job_id,
            "the provider has this job, and the ledger does not know its id yet",
            "adopt it",
            mending="adopt",
        )
    elif job.provider_job_id != found.job_id and found.outcome is not JobOutcome.FAILED:
        # One that failed judged nothing: its provider had no room, and the same was sent again.
        yield _finding(
            "duplicate_job",
            job,
            found.job_id,
            f"the submission is already being judged as {job.provider_job_id}"
            if found.is_running
            else f"it has ended and may be on the bill; what counts is {job.provider_job_id}",
            "cancel it, and bill what it had finished"
            if found.is_running
            else "store what it finished, and bill it",
            mending="cancel",
        )


def _unknown_job(found: ListedJob, key: str, identity: Identity, account: str) -> Discrepancy:
    """Return what a job is that no row of the ledger stands for: this store's own, or another's."""
    is_own = identity.made(key)
    if not is_own:
        who = "the store this home was copied from" if identity.knows(key) else "another store"
        problem, remedy = f"{who} made it ({key[:16]})", "it is left alone"
    elif found.is_running:
        problem = f"this store made it ({key[:16]}), and knows nothing of it: it was restored since"
        remedy = "submit its batch again, which adopts it; or cancel it (--also-cancel)"
    else:
        problem = f"this store made it ({key[:16]}), and knows nothing of it; it has ended"
        remedy = "submit its batch again, which adopts what it finished"
    return Discrepancy(
        kind="unknown_job" if is_own else "other_store_job",
        account=account,
        batch_id=None,
        what=found.job_id,
        problem=problem,
        remedy=remedy,
        mending="cancel" if is_own and found.is_running else None,
        needs_consent=is_own,
    )


def _files_left(
    provider: Provider, jobs: Sequence[ProviderJob], known: _Known, since: datetime
) -> Iterator[Discrepancy]:
    """Yield files that no job needs any more, and files named after nobody's submission."""
    over = [job for job in jobs if job.state in DONE]
    owner = {file_id: job for job in over for file_id in job.file_ids}
    for file in provider.list_files(since):
        named = _FILE.fullmatch(file.filename)
        by_name = known.by_key.get(named[1]) if named else None
        job = owner.get(file.file_id) or by_name
        if job is not None and (job.state in DONE or _is_extra(file.file_id, job)):
            yield _finding(
                "file_left",
                job,
                file.file_id,
                f"{file.n_bytes} bytes are stored at the provider that no job needs any more",
                "delete it",
                mending="delete",
            )
        elif named and by_name is None:
            is_own = known.identity.made(named[1])
            who = "this store, which knows nothing of it" if is_own else "another store"
            yield Discrepancy(
                kind="unknown_file" if is_own else "other_store_file",
                account=provider.account,
                batch_id=None,
                what=file.file_id,
                problem=f"it is named after a submission, {named[1][:16]}, of {who}",
                remedy="delete it (--also-cancel)" if is_own else "it is left alone",
                mending="delete" if is_own else None,
                needs_consent=is_own,
            )


def _is_extra(file_id: str, job: ProviderJob) -> bool:
    """Whether a running job was made of another file: this one came of a lost upload."""
    return job.state in OPEN and job.input_file_id not in {None, file_id}


def _finding(
    kind: Kind,
    job: ProviderJob,
    what: str | None,
    problem: str,
    remedy: str,
    *,
    mending: Mending | None = None,
    needs_consent: bool = False,
) -> Discrepancy:
    return Discrepancy(
        kind=kind,
        account=job.account,
        batch_id=job.batch_id,
        what=what or job.submission_key,
        problem=problem,
        remedy=remedy,
        mending=mending,
        submission_key=job.submission_key,
        needs_consent=needs_consent,
    )

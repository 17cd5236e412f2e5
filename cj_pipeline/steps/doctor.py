"""What the ledger and the providers say of the same jobs, compared; safe to run at any time.

Only what bears our submission keys, or whose id the ledger holds, is ever touched. Everything
else in an account is somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.judges import Judge
from cj_pipeline.providers import ListedJob, Provider
from cj_pipeline.steps.engine import Engine

log = structlog.get_logger()

LOOK_BACK = timedelta(days=31)
"""No provider keeps results longer, so older jobs have nothing left to compare."""

EXPIRES_SOON = timedelta(days=7)
SHORTEST_KEPT = timedelta(days=29)
"""Anthropic's results go 29 days after creation; the others keep theirs longer."""

_KEY = re.compile(r"[0-9a-f]{64}")
_SENDING = frozenset({"intent", "uploaded", "ambiguous"})
_OPEN = frozenset({"submitted", "adopted", "running"})
_DONE = frozenset({"settled", "refused"})

Kind = Literal[
    "unreachable",
    "other_credentials",
    "duplicate_job",
    "unknown_job",
    "not_yet_adopted",
    "ambiguous",
    "missing_job",
    "file_left",
    "results_expire",
]


@dataclass(frozen=True)
class Finding:
    """One thing that ledger and provider do not agree on, and what would mend it.

    Attributes:
        kind: What it is.
        account: Where; see `account_fingerprint`.
        batch_id: Whose; None where no batch of this store is concerned.
        what: The id of the job, the file or the submission.
        problem: In words.
        remedy: What `--fix` does, or a person has to.
        cancels: The job that `--fix` cancels; None where it cancels none.
        deletes: The file that `--fix` deletes; None where it deletes none.
    """

    kind: Kind
    account: str
    batch_id: str | None
    what: str
    problem: str
    remedy: str
    cancels: str | None = None
    deletes: str | None = None

    @property
    def is_mendable(self) -> bool:
        """Whether `mend` does something about it."""
        return self.cancels is not None or self.deletes is not None


def examine(engine: Engine) -> list[Finding]:
    """Return everything on which the ledger and the providers differ; nothing is changed."""
    now = engine.clock()
    jobs, judges = _ledger(engine, now)
    findings = [finding for job in jobs for finding in _by_itself(job, now)]
    for account in sorted({job["account"] for job in jobs}):
        ours = [job for job in jobs if job["account"] == account]
        judge = judges[ours[0]["batch_id"], ours[0]["judge_id"]]
        try:
            provider = engine.provider(judge)
            if provider.account != account:
                findings += _other_credentials(account, ours)
                continue
            findings += _compared(provider, ours, now)
        except CJError as error:
            remedy = "mend that, then run the doctor again"
            findings.append(Finding("unreachable", account, None, account, str(error), remedy))
    return findings


def mend(engine: Engine, findings: Sequence[Finding]) -> list[Finding]:
    """Cancel duplicate jobs and delete files left behind; return what was mended."""
    _, judges = _ledger(engine, engine.clock())
    providers = {p.account: p for p in _reachable(engine, judges.values())}
    mended = []
    for finding in findings:
        provider = providers.get(finding.account)
        if provider is None or not finding.is_mendable:
            continue
        try:
            if finding.cancels is not None:
                provider.cancel(finding.cancels)
            if finding.deletes is not None:
                provider.discard(None, [finding.deletes])
        except CJError as error:
            log.warning("not_mended", what=finding.what, problem=str(error))
            continue
        log.info("mended", kind=finding.kind, what=finding.what, batch_id=finding.batch_id)
        mended.append(finding)
    return mended


def _ledger(
    engine: Engine, now: datetime
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Judge]]:
    """Return the provider jobs that may still be known to a provider, and who asked them."""
    with engine.store.read() as db:
        jobs = db.rows(
            "SELECT * FROM provider_jobs WHERE batching_mode = 'provider_batch_api'"
            " AND intended_at >= ? ORDER BY intended_at, submission_key",
            [now - LOOK_BACK],
        )
        rows = db.rows("SELECT batch_id, judge_id, definition FROM judges")
    judges = {(r["batch_id"], r["judge_id"]): Judge.from_definition(r["definition"]) for r in rows}
    return jobs, judges


def _reachable(engine: Engine, judges: Any) -> Iterator[Provider]:
    for judge in judges:
        try:
            yield engine.provider(judge)
        except CJError as error:
            log.warning("provider_unreachable", judge_id=judge.judge_id, problem=str(error))


def _by_itself(job: Mapping[str, Any], now: datetime) -> Iterator[Finding]:
    """Yield what the ledger alone shows to be wrong with a job."""
    if job["state"] == "ambiguous":
        yield _finding(
            "ambiguous",
            job,
            job["submission_key"],
            f"nobody knows whether this submission of {job['n_requests']} requests was accepted",
            "the next submission step looks for it again and adopts it if it is there",
        )
    is_waiting = job["state"] in {"ended", "collected"}
    if is_waiting and now - job["intended_at"] > SHORTEST_KEPT - EXPIRES_SOON:
        yield _finding(
            "results_expire",
            job,
            job["provider_job_id"],
            "its results have been waiting for weeks, and providers delete them after 29 days",
            f"collect them now: `cj execute` the batch '{job['batch_id']}' again",
        )


def _other_credentials(account: str, jobs: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    unfinished = [job for job in jobs if job["state"] not in _DONE]
    if unfinished:
        yield Finding(
            kind="other_credentials",
            account=account,
            batch_id=unfinished[0]["batch_id"],
            what=account,
            problem=f"{len(unfinished)} jobs were begun with another key or address",
            remedy="restore those credentials; nothing is asked again under new ones",
        )


def _compared(
    provider: Provider, jobs: Sequence[Mapping[str, Any]], now: datetime
) -> Iterator[Finding]:
    """Yield what one account's lists and the ledger's jobs there disagree on."""
    since = min(job["intended_at"] for job in jobs)
    listed = list(provider.list_jobs(since))
    by_key = {job["submission_key"]: job for job in jobs}
    for found in listed:
        yield from _about_listed(found, by_key, provider.account)
    ids = {found.job_id for found in listed}
    for job in jobs:
        # A job made a moment ago may be missing from a list that lags.
        is_settled_in_lists = now - job["intended_at"] > timedelta(minutes=15)
        if job["state"] in _OPEN and job["provider_job_id"] not in ids and is_settled_in_lists:
            yield _finding(
                "missing_job",
                job,
                job["provider_job_id"],
                "the ledger waits for this job, and the provider does not list it",
                "look in the provider's console; if it is gone, cancel the batch",
            )
    yield from _files_left(provider, jobs, since)


def _about_listed(
    found: ListedJob, by_key: Mapping[str, Mapping[str, Any]], account: str
) -> Iterator[Finding]:
    key = found.submission_key
    if key is None or not _KEY.fullmatch(key):
        return
    job = by_key.get(key)
    if job is None:
        yield Finding(
            kind="unknown_job",
            account=account,
            batch_id=None,
            what=found.job_id,
            problem=f"it bears a submission key, {key[:16]}, that this store does not know",
            remedy="another store may own it; if none does, cancel it in the provider's console",
        )
    elif job["provider_job_id"] is None and job["state"] in _SENDING:
        yield _finding(
            "not_yet_adopted",
            job,
            found.job_id,
            "the provider has this job, and the ledger does not know its id yet",
            f"`cj execute` the batch '{job['batch_id']}' again: the submission step adopts it",
        )
    elif job["provider_job_id"] != found.job_id and found.is_running:
        yield _finding(
            "duplicate_job",
            job,
            found.job_id,
            f"the submission is already being judged as {job['provider_job_id']}",
            "cancel it",
            cancels=found.job_id,
        )


def _files_left(
    provider: Provider, jobs: Sequence[Mapping[str, Any]], since: datetime
) -> Iterator[Finding]:
    """Yield files of jobs that are over; those of running ones are still needed."""
    over = [job for job in jobs if job["state"] in _DONE]
    owner = {
        job[column]: job
        for job in over
        for column in ("input_file_id", "output_file_id", "error_file_id")
        if job[column]
    }
    owner |= {f"{job['submission_key']}.jsonl": job for job in over}
    for file in provider.list_files(since):
        job = owner.get(file.file_id) or owner.get(file.filename)
        if job is not None:
            yield _finding(
                "file_left",
                job,
                file.file_id,
                f"{file.n_bytes} bytes of a job that is over are still kept at the provider",
                "delete it",
                deletes=file.file_id,
            )


def _finding(
    kind: Kind,
    job: Mapping[str, Any],
    what: str,
    problem: str,
    remedy: str,
    *,
    cancels: str | None = None,
    deletes: str | None = None,
) -> Finding:
    account, batch_id = job["account"], job["batch_id"]
    return Finding(kind, account, batch_id, what, problem, remedy, cancels, deletes)

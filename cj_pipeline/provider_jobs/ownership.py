"""Whose a provider job is: proved by the submission key it bears, whatever key asks for it.

Keys are rotated, and homes are copied. A job that another key than today's created is ours all the
same if it bears our submission key; the ledger then notes the account that sees it now. A job that
another store made may be read and adopted, and is never cancelled and nothing of it deleted.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from cj_pipeline.errors import OtherAccountError
from cj_pipeline.provider_jobs import ledger
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.providers.base import Provider
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.identity import Identity, known_identity, settle_identity
from cj_pipeline.store.session import Session

log = structlog.get_logger()


def require_ours(runtime: Runtime, job: ProviderJob, provider: Provider) -> ProviderJob:
    """Return a job as the account that asks for it now sees it.

    Raises:
        OtherAccountError: If it was begun with another key or address, and this one cannot prove
            that the job is ours: there it would seem not to exist.
    """
    if job.account == provider.account:
        return job
    if job.provider_job_id is None or not _is_proved(runtime, job, provider):
        raise of_another_account(provider.name, job.submission_key, job.batch_id)
    with runtime.store.write() as db:
        ledger.see_from_account(db, job.submission_key, provider.account)
    log.warning(
        "account_changed",
        batch_id=job.batch_id,
        submission_key=job.submission_key,
        account=provider.account,
    )
    return replace(job, account=provider.account)


def may_stop(runtime: Runtime, job: ProviderJob) -> bool:
    """Whether this store may cancel a job and delete what it left: not if another store made it."""
    identity = settle_identity(runtime.store, runtime.clock())
    with runtime.store.read() as db:
        borne = borne_key(db, job.submission_key)
    return may_stop_by(identity, job, borne)


def may_stop_by(identity: Identity, job: ProviderJob, borne: str | None) -> bool:
    """Whether a store of this identity may cancel a job that bears this key."""
    if borne is None or borne == job.submission_key:
        return identity.may_stop(job.submission_key, job.intended_at)
    return identity.made(borne) or (not identity.knows(borne) and identity.copied_at is None)


def borne_key(db: Session, key: str) -> str:
    """Return the key that a job of the ledger bears at its provider."""
    row = db.one("SELECT borne_key FROM borne_keys WHERE submission_key = ?", [key])
    return row["borne_key"] if row else key


def not_ours_to_stop(runtime: Runtime, job: ProviderJob) -> str:
    """Return why a job is left alone, and what a person can do."""
    with runtime.store.read() as db:
        is_copy = known_identity(db, runtime.clock()).copied_at is not None
    why = "this home is a copy of the one that made it" if is_copy else "another store made it"
    return (
        f"Provider job {job.provider_job_id or job.submission_key[:16]} of batch '{job.batch_id}'"
        f" runs on: {why}. Cancel the batch there. If this home was moved and the other is gone,"
        " run `cj store moved` first."
    )


def of_another_account(provider: str, key: str, batch_id: str) -> OtherAccountError:
    """Return why a job is left alone: it may exist, and today's key cannot see it."""
    return OtherAccountError(
        f"Provider job {key[:16]} of batch '{batch_id}' was begun with another key or address of"
        f" {provider}, and today's cannot see it. Set the key of that account, in the variable that"
        " the judge names, and run the same command: nothing is requested again under another."
    )


def _is_proved(runtime: Runtime, job: ProviderJob, provider: Provider) -> bool:
    with runtime.store.read() as db:
        borne = borne_key(db, job.submission_key)
    return provider.is_of(
        job.known_job_id, borne, job.n_requests, job.create_begun_at or job.intended_at
    )

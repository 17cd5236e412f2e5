"""What still lies at a provider although nothing needs it: deleted in the end, and counted until.

A job's files hold every essay of it. Deleting them may fail, or never come about, so what is to be
deleted is recorded first, and what stays is tried again, at every look at the provider and by the
nightly upkeep.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.provider_jobs.ownership import require_ours
from cj_pipeline.providers.base import Provider
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

log = structlog.get_logger()

LEAST_WAIT, LONGEST_WAIT = timedelta(minutes=10), timedelta(days=1)


def note_what_to_delete(db: Session, judge: Judge, job: ProviderJob, now: datetime) -> None:
    """Record what a provider keeps of a job that nothing needs any more, before it is deleted.

    In the transaction that settles the job: whoever is killed after it leaves nothing unsaid.
    """
    things = [*((file_id, True) for file_id in job.file_ids), (job.known_job_id, False)]
    db.insert(
        "provider_leftovers",
        [
            {
                "submission_key": job.submission_key,
                "what": what,
                "is_file": is_file,
                "provider": judge.provider,
                "account": job.account,
                "judge": json.dumps(judge.definition()),
                "error": None,
                "n_tries": 0,
                "found_at": now,
                "next_try_at": now + LEAST_WAIT,
            }
            for what, is_file in things
        ],
        on_conflict="ignore",
    )


def discard_job(runtime: Runtime, provider: Provider, job: ProviderJob) -> None:
    """Delete what was noted of a settled job, each thing by itself; what stays is tried again."""
    key = job.submission_key
    with runtime.store.read() as db:
        things = db.rows(
            "FROM provider_leftovers WHERE submission_key = ? AND n_tries = 0 ORDER BY what", [key]
        )
    if not things:
        return
    gone: list[str] = []
    failed: dict[str, str] = {}
    try:
        require_ours(runtime, job, provider)
    except CJError as error:
        failed = {row["what"]: str(error) for row in things}
    else:
        for row in things:
            try:
                _delete(provider, row["what"], is_file=row["is_file"])
                gone.append(row["what"])
            except CJError as error:
                failed[row["what"]] = str(error)
    if failed:
        log.warning("provider_files_left", submission_key=key, n_left=len(failed))
    now = runtime.clock()
    with runtime.store.write() as db:
        db.execute(
            "DELETE FROM provider_leftovers WHERE submission_key = ?"
            " AND what IN (SELECT unnest(?))",
            [key, gone],
        )
        for what, problem in failed.items():
            db.execute(
                "UPDATE provider_leftovers SET error = ?, n_tries = 1, next_try_at = ?"
                " WHERE submission_key = ? AND what = ?",
                [problem, now + LEAST_WAIT, key, what],
            )


def delete_leftovers(runtime: Runtime, *, at_most: int | None = None, due_only: bool = True) -> int:
    """Try again to delete what lies at the providers; return how many things are gone.

    Args:
        runtime: The pipeline's connections.
        at_most: How many to try, so that a tick stays short; None: all.
        due_only: Whether to leave alone what failed a moment ago.
    """
    now = runtime.clock()
    with runtime.store.read() as db:
        rows = db.rows(
            "FROM provider_leftovers WHERE $all OR next_try_at <= $now"
            " ORDER BY next_try_at, submission_key, what LIMIT $most",
            {"now": now, "all": not due_only, "most": at_most or 1_000_000},
        )
    n_gone = 0
    for row in rows:
        problem = None
        try:
            provider = runtime.provider(Judge.from_definition(json.loads(row["judge"])))
            _delete(provider, row["what"], is_file=row["is_file"])
        except CJError as error:
            problem = str(error)
        key = [row["submission_key"], row["what"]]
        with runtime.store.write() as db:
            if problem is None:
                db.execute(
                    "DELETE FROM provider_leftovers WHERE submission_key = ? AND what = ?", key
                )
                n_gone += 1
            else:
                wait = min(LONGEST_WAIT, LEAST_WAIT * 2 ** min(10, row["n_tries"]))
                db.execute(
                    "UPDATE provider_leftovers SET error = ?, n_tries = n_tries + 1,"
                    " next_try_at = ? WHERE submission_key = ? AND what = ?",
                    [problem, now + wait, *key],
                )
    return n_gone


def count_leftovers(db: Session, now: datetime, batch_id: str | None = None) -> int:
    """Return how many things lie at providers that nothing needs, of one batch or of all.

    What was noted a moment ago and not tried yet is being deleted, unless whoever did it died.
    """
    row = db.one(
        "SELECT count(*) AS n FROM provider_leftovers WHERE (n_tries > 0 OR next_try_at <= $now)"
        " AND ($batch IS NULL OR submission_key IN"
        " (SELECT submission_key FROM provider_jobs WHERE batch_id = $batch))",
        {"batch": batch_id, "now": now},
    )
    return int(row["n"]) if row else 0


def describe_leftovers(n: int) -> str:
    """Return what a person has to know of them; empty where there are none."""
    if not n:
        return ""
    things = "1 file or job" if n == 1 else f"{n} files and jobs"
    return (
        f"{things} could not be deleted at the provider yet, and may hold essays: that is retried"
        " every day, and by `cj doctor --fix`."
    )


def _delete(provider: Provider, what: str, *, is_file: bool) -> None:
    provider.discard(None if is_file else what, [what] if is_file else [])

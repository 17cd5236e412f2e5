"""Ended provider jobs come home: raw callbacks are stored, then read, then settled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from cj_pipeline.comparisons import Outcome
from cj_pipeline.errors import CJError
from cj_pipeline.providers import Provider
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.records import BatchRecord, load_batch
from cj_pipeline.steps.settlement import read_job, settle_job
from cj_pipeline.store import Session

log = structlog.get_logger()


@dataclass(frozen=True)
class Collected:
    """What came home in one call, over all jobs it settled."""

    n_jobs: int
    outcomes: Mapping[Outcome, int]
    billed_usd: float

    @property
    def n_requested(self) -> int:
        """Every request of the jobs settled; the outcomes add up to it."""
        return sum(self.outcomes.values())


def collect_wave(engine: Engine, batch_id: str) -> Collected:
    """Bring home every provider job of a batch that has ended.

    Raw lines are committed before anything reads them, so a crash or a better parser never costs
    a second job; reading and settling are one further transaction per job.
    """
    with engine.store.read() as db:
        record = load_batch(db, batch_id)
        jobs = db.rows(
            "SELECT * FROM provider_jobs WHERE batch_id = ? AND state IN ('ended', 'collected')"
            " ORDER BY submission_key",
            [batch_id],
        )
        asked = _asked(db, batch_id)
    outcomes: Counter[Outcome] = Counter()
    billed = 0.0
    for job in jobs:
        if job["state"] == "ended":
            _store_callbacks(engine, record, job, asked[job["submission_key"]])
        settled = _settle(engine, record, job)
        outcomes.update(settled[0])
        billed += settled[1]
    return Collected(len(jobs), dict(outcomes), billed)


def _asked(db: Session, batch_id: str) -> dict[str, set[str]]:
    """Return the custom ids of each provider job that has ended and is not settled."""
    asked: dict[str, set[str]] = defaultdict(set)
    for row in db.rows(
        "SELECT submission_key, custom_id FROM attempts JOIN provider_jobs USING (submission_key)"
        " WHERE attempts.batch_id = ? AND state = 'ended'",
        [batch_id],
    ):
        asked[row["submission_key"]].add(row["custom_id"])
    return asked


def _store_callbacks(
    engine: Engine, record: BatchRecord, job: Mapping[str, Any], asked: set[str]
) -> None:
    provider = engine.provider(record.judge(job["judge_id"]))
    rows: list[dict[str, Any]] = []
    if job["batching_mode"] == "provider_batch_api":
        rows = _callbacks(provider, job, asked)
    now = engine.clock()
    with engine.store.write() as db:
        db.insert("callbacks", [row | {"received_at": now} for row in rows], on_conflict="ignore")
        db.execute(
            "UPDATE provider_jobs SET state = 'collected', collected_at = ?"
            " WHERE submission_key = ? AND state = 'ended'",
            [now, job["submission_key"]],
        )
    kinds = Counter(row["kind"] for row in rows)
    log.info(
        "callbacks_stored",
        batch_id=record.batch_id,
        submission_key=job["submission_key"],
        n_requested=job["n_requests"],
        **kinds,
    )


def _callbacks(provider: Provider, job: Mapping[str, Any], asked: set[str]) -> list[dict[str, Any]]:
    """Return one row per line that came, each with whose it is; nothing that came is dropped."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for line in provider.collect(job["provider_job_id"]):
        custom_id = provider.parse_reply(line.text).custom_id
        if custom_id is None:
            kind = "garbled"
        elif custom_id not in asked:
            kind = "foreign"
        else:
            kind = "duplicate" if custom_id in seen else "matched"
            seen.add(custom_id)
        rows.append(
            {
                "batch_id": job["batch_id"],
                "wave": job["wave"],
                "submission_key": job["submission_key"],
                "source": line.source,
                "line": line.line,
                "custom_id": custom_id,
                "kind": kind,
                "body": line.text,
            }
        )
    return rows


def _settle(
    engine: Engine, record: BatchRecord, job: Mapping[str, Any]
) -> tuple[Counter[Outcome], float]:
    provider = engine.provider(record.judge(job["judge_id"]))
    now = engine.clock()
    with engine.store.write() as db:
        row = db.one(
            "SELECT state FROM provider_jobs WHERE submission_key = ?", [job["submission_key"]]
        )
        if row is None or row["state"] != "collected":
            return Counter(), 0.0
        settled = read_job(db, record, job, provider, now)
        settle_job(db, record, job, settled, now)
    counts = Counter(settled.outcomes.values())
    log.info(
        "provider_job_settled",
        batch_id=record.batch_id,
        submission_key=job["submission_key"],
        billed_usd=settled.billed_usd,
        **{outcome.value: n for outcome, n in counts.items()},
    )
    if job["provider_job_id"] is not None:
        _discard(provider, job)
    return counts, settled.billed_usd


def _discard(provider: Provider, job: Mapping[str, Any]) -> None:
    """Delete what the provider keeps of a settled job; its callbacks are ours by now.

    Where that fails, files go by their own expiry: nothing of the batch depends on it.
    """
    files = [job["input_file_id"], job["output_file_id"], job["error_file_id"]]
    try:
        provider.discard(job["provider_job_id"], [file for file in files if file])
    except CJError as error:
        log.warning("provider_files_left", submission_key=job["submission_key"], problem=str(error))

"""A few requests ahead of a judge's first requests: does it answer as asked?

A model that refuses the schema, a model nobody has, a prompt nobody can answer: each would cost a
whole job, and a day. So a judge that has never given a verdict in this store is first asked the
first comparisons of the wave by single calls, in every mode. They are the wave's own, paid once and
kept; the rest goes out when one of them has succeeded. Which judges need that is decided here;
sending is `submit_wave`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import Judge
from cj_pipeline.provider_jobs.requests import RequestSpec
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

log = structlog.get_logger()

CANARY_REQUESTS = 3
"""One may be refused for its essays; three in a row are the judge's own fault."""

MAX_CANARIES = 3
"""What may pass, such as an overloaded service, is tried so often before the judge is given up."""


@dataclass(frozen=True)
class Released:
    """What may go out now for one judge: its canary, or all that is open."""

    judge: Judge
    asks: tuple[RequestSpec, ...]
    is_canary: bool


def canary_size(settings: BatchSettings, judge: Judge) -> int:
    """Return how many requests go ahead for a judge that is new here; 0 for none."""
    if settings.canary_requests is not None:
        return settings.canary_requests
    return CANARY_REQUESTS if judge.service.canary and not judge.is_simulated else 0


def release(
    db: Session, record: BatchRecord, asks: Sequence[RequestSpec]
) -> tuple[list[Released], list[Judge]]:
    """Return what may go out now, and the judges whose canaries brought no verdict."""
    released: list[Released] = []
    failed: list[Judge] = []
    for judge in record.judges:
        own = tuple(ask for ask in asks if ask.judge_id == judge.judge_id)
        size = canary_size(record.settings, judge)
        if not own:
            continue
        if len(own) <= size or size == 0 or _has_answered(db, judge):
            released.append(Released(judge, own, is_canary=False))
            continue
        before = _canaries(db, record, judge)
        if any(row["is_out"] for row in before):
            continue
        is_given_up = len(before) >= MAX_CANARIES and not any(row["is_answered"] for row in before)
        if before and (is_given_up or not before[-1]["may_pass"]):
            failed.append(judge)
        else:
            released.append(Released(judge, own[:size], is_canary=True))
    return released, failed


def held_back(db: Session, record: BatchRecord) -> int:
    """Return how many planned comparisons wait for a canary to come home."""
    if record.canary_failed or record.spend_cap_reached:
        return 0
    row = db.one(
        "SELECT count(*) AS n FROM comparison_pairs p"
        " ANTI JOIN attempts a USING (comparison_id) ANTI JOIN comparisons c USING (comparison_id)"
        " WHERE p.batch_id = $batch AND p.judge_id IN"
        " (SELECT judge_id FROM provider_jobs WHERE batch_id = $batch AND is_canary)",
        {"batch": record.batch_id},
    )
    return int(row["n"]) if row else 0


def _has_answered(db: Session, judge: Judge) -> bool:
    """Return whether this very judge has ever given a verdict; any change made it a new one."""
    row = db.one(
        "SELECT 1 AS yes FROM attempts WHERE judge_id = ? AND outcome = 'succeeded' LIMIT 1",
        [judge.judge_id],
    )
    return row is not None


def _canaries(db: Session, record: BatchRecord, judge: Judge) -> list[dict[str, bool]]:
    """Return a judge's canaries here, oldest first: is it out, may it pass, was it answered?

    What was answered without a verdict was paid for: `holds` says when that is enough.
    """
    return db.rows(
        "SELECT count(*) > count(a.outcome) OR bool_or(p.phase <> 'done')"
        " AS is_out, coalesce(bool_or(a.may_retry), FALSE) AS may_pass,"
        " coalesce(sum(a.tokens_completion), 0) > 0 AS is_answered"
        " FROM v_job_phases p JOIN attempts a USING (submission_key)"
        " WHERE p.batch_id = ? AND p.judge_id = ? AND p.is_canary"
        " GROUP BY p.submission_key ORDER BY min(p.intended_at)",
        [record.batch_id, judge.judge_id],
    )

"""Replies become outcomes, outcomes become ended comparisons, and reservations become bills.

Every request of a provider job gets exactly one outcome, a missing reply being one of them, so
that requested = succeeded + failed by kind + missing holds for each job, always.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome, Verdict
from cj_pipeline.errors import InvalidOutputError, StoreError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Price, cost_usd
from cj_pipeline.judging.prompts import parse_verdict
from cj_pipeline.provider_jobs import charges, ledger
from cj_pipeline.provider_jobs.download import Download
from cj_pipeline.provider_jobs.ledger import AwaitedRows, ProviderJob
from cj_pipeline.provider_jobs.missing_rows import (
    IN_DOUBT,
    PAID_FOR,
    MissingRows,
    Trouble,
    clear_doubt,
    missing_rows,
    put_in_doubt,
)
from cj_pipeline.providers.base import CAPACITY_CODES, JobOutcome, Parser, Reply
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

ROWS_AT_ONCE = 5_000
"""Rows held in memory while a job is collected and settled; each brings a reply of some 2 kB."""

MAX_ATTEMPTS_BY_OUTCOME = {
    # A judge that refuses or was filtered will do so again; one more try rules out an accident.
    RequestOutcome.REFUSAL: 2,
    RequestOutcome.CONTENT_FILTER: 2,
    RequestOutcome.TRUNCATED: 2,
}
"""How often a comparison may fail in each way; in others as often as the settings say."""

ALL_CAUSES = 2
"""Times `max_attempts`: how often a comparison may be asked whatever the causes were."""

_OUTCOME_WITHOUT_REPLY: Mapping[JobOutcome | None, RequestOutcome] = {
    JobOutcome.EXPIRED: RequestOutcome.EXPIRED,
    JobOutcome.CANCELLED: RequestOutcome.CANCELLED,
}
"""What a request without a reply counts as, by how its job ended; in other cases as missing."""


@dataclass(frozen=True)
class ReadReply:
    """A reply and the verdict in it, or how it failed."""

    outcome: RequestOutcome
    verdict: Verdict | None
    reply: Reply | None
    error_code: str | None
    error_message: str | None
    may_retry: bool


def read_reply(parse: Parser, judge: Judge, body: str) -> ReadReply:
    """Return what a raw callback says; never raises, whatever the provider sent."""
    reply = parse(body)
    if reply.outcome is not RequestOutcome.SUCCEEDED:
        # Which of the judge's own failures are worth another try is said per outcome, below.
        may_retry = reply.may_retry or reply.outcome is not RequestOutcome.PROVIDER_ERROR
        return ReadReply(
            reply.outcome, None, reply, reply.error_code, reply.error_message, may_retry
        )
    try:
        verdict = parse_verdict(reply.text or "", allow_ties=judge.allow_ties)
    except InvalidOutputError as error:
        return ReadReply(
            RequestOutcome(error.kind), None, reply, error.kind, str(error), may_retry=True
        )
    return ReadReply(RequestOutcome.SUCCEEDED, verdict, reply, None, None, may_retry=False)


def read_or_missing(
    parse: Parser,
    judge: Judge,
    job: ProviderJob,
    body: str | None,
    kind: str | None = "matched",
) -> ReadReply:
    """Return what became of a request: its reply, our own word on it, or why there is nothing."""
    if body is None:
        return _without_reply(job)
    if kind == "matched":
        return read_reply(parse, judge, body)
    error = json.loads(body)["error"]
    is_expired = kind == "expired"
    # What came too late once is not worth asking for again; a failure may pass.
    outcome = RequestOutcome.EXPIRED if is_expired else RequestOutcome.PROVIDER_ERROR
    return ReadReply(outcome, None, None, error["code"], error["message"], may_retry=not is_expired)


def may_ask_again(
    outcome: RequestOutcome, n_of_its_kind: int, n_attempts: int, most: int, *, may_retry: bool
) -> bool:
    """Return whether a comparison that failed is asked once more.

    Args:
        outcome: How its last attempt failed.
        n_of_its_kind: How many of its attempts failed in that way: each cause has its own budget,
            so that an expired job costs a judge no second chance.
        n_attempts: How often it was asked in all.
        most: How often it may fail in one way, by the settings.
        may_retry: Whether asking the same again may help.
    """
    return (
        may_retry
        and n_of_its_kind < min(most, MAX_ATTEMPTS_BY_OUTCOME.get(outcome, most))
        and n_attempts < ALL_CAUSES * most
    )


@dataclass(frozen=True)
class Settlement:
    """What a provider job came to: how many requests ended in which way, and the bill.

    Attributes:
        outcomes: Of the requests that were read this time.
        billed_usd: For the whole job.
        n_missing: Requests without a row that may have been paid for.
    """

    outcomes: Mapping[RequestOutcome, int]
    billed_usd: float
    n_missing: int = 0


def in_parts(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows `ROWS_AT_ONCE` at a time."""
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part


def settle_job(
    db: Session,
    record: BatchRecord,
    job: ProviderJob,
    parse: Parser,
    now: datetime,
    *,
    trouble: Trouble | None = None,
) -> Settlement:
    """Read a collected job's callbacks and keep what they come to, in the caller's transaction.

    While rows are missing that the provider counts as done, the job is not settled but incomplete:
    they stay open, in doubt at the most they can cost, until they come or are given up.

    Raises:
        StoreError: If outcomes and requests do not add up: then nothing is kept.
    """
    state = _batch_state(db, record.batch_id)
    outcomes = _read_rows(db, record, job, parse, now, has_ended=state["has_ended"])
    wait_for = timedelta(seconds=record.settings.incomplete_after_s)
    missing = missing_rows(db, job, now, trouble=trouble, wait_for=wait_for)
    is_over = missing is None or missing.are_given_up
    if is_over:
        read = _without_reply(job) if missing is None else _given_up(missing)
        outcomes += _end_without_reply(db, job, read, now, is_in_doubt=missing is not None)
        _require_every_outcome(db, job)
    billed = _keep_money(db, record, job, missing, now)
    awaited = None if missing is None else missing.awaited
    if is_over:
        ledger.settle(db, job.submission_key, billed, awaited)
    elif awaited is not None:
        ledger.await_rows(db, job.submission_key, billed, awaited, now)
    if not state["has_ended"]:
        fail_exhausted(db, record, now, give_up=state["is_cancelled"])
    return Settlement(dict(outcomes), billed, awaited.n_rows if awaited else 0)


def settle_late_rows(
    db: Session,
    record: BatchRecord,
    job: ProviderJob,
    parse: Parser,
    now: datetime,
    *,
    came: Download,
) -> Settlement:
    """Read what came of rows that a settled job was settled without; what is missing stays so.

    Verdicts count, also for a batch that has ended: its grading is then out of date.
    """
    state = _batch_state(db, record.batch_id)
    outcomes = _read_rows(db, record, job, parse, now, has_ended=state["has_ended"])
    wait_for = timedelta(seconds=record.settings.incomplete_after_s)
    missing = missing_rows(db, job, now, trouble=came.trouble, wait_for=wait_for)
    if missing is None:
        clear_doubt(db, job)
    awaited = AwaitedRows(0, None, None, None) if missing is None else missing.awaited
    billed = _keep_money(db, record, job, missing, now)
    ledger.record_late_rows(db, job.submission_key, billed, awaited, came.status)
    if not state["has_ended"]:
        fail_exhausted(db, record, now, give_up=state["is_cancelled"])
    return Settlement(dict(outcomes), billed, awaited.n_rows)


def _read_rows(
    db: Session,
    record: BatchRecord,
    job: ProviderJob,
    parse: Parser,
    now: datetime,
    *,
    has_ended: bool,
) -> Counter[RequestOutcome]:
    """Keep what every row says that was not read before; return how many ended in which way.

    Rows are read and written `ROWS_AT_ONCE` at a time, so that a job of 50,000 requests needs no
    more memory than a small one. Of a batch that ended while nobody waited for a row of it, no
    verdict counts any more.
    """
    judge = record.judge(job.judge_id)
    outcomes: Counter[RequestOutcome] = Counter()
    for asked in _asked_with_replies(db, record, job):
        attempts: list[dict[str, Any]] = []
        verdicts: list[dict[str, Any]] = []
        for row in asked:
            read = read_or_missing(parse, judge, job, row["body"], row["callback_kind"])
            cost = bill_of(row, read, judge.price, batched=job.is_batched)
            attempts.append(attempt_row(row, read, cost, now))
            if read.verdict is not None:
                verdicts.append(verdict_row(row, read.verdict, attempts[-1], now))
            outcomes[read.outcome] += 1
        if not has_ended or job.incomplete_since is not None:
            _keep_verdicts(db, asked, verdicts, now)
            if has_ended and verdicts:
                _mark_out_of_date(db, record.batch_id, now)
        db.insert("attempts", attempts, on_conflict="replace")
    return outcomes


def _keep_verdicts(
    db: Session, asked: Sequence[Mapping[str, Any]], verdicts: list[dict[str, Any]], now: datetime
) -> None:
    """Keep verdicts; one that came after its comparison was given up takes the failure's place."""
    late = [row for row in asked if row["outcome"] is not None]
    if not late:
        db.insert("comparisons", verdicts, on_conflict="ignore")
        return
    ids = [row["comparison_id"] for row in asked]
    known = {
        row["comparison_id"]: row
        for row in db.rows(
            "SELECT * FROM comparisons WHERE comparison_id IN (SELECT unnest(?))", [ids]
        )
    }
    open_still = {name for name in ids if name not in known or known[name]["status"] == "failed"}
    keep_earlier_outcomes(
        db, [(row["custom_id"], known.get(row["comparison_id"])) for row in late], now
    )
    db.insert(
        "comparisons",
        [row for row in verdicts if row["comparison_id"] in open_still],
        on_conflict="replace",
    )


def keep_earlier_outcomes(
    db: Session, replaced: Sequence[tuple[str, Mapping[str, Any] | None]], now: datetime
) -> None:
    """Keep beside what is about to change what was there before.

    Args:
        db: A session that may write.
        replaced: The custom ids of attempts, each with the row of its comparison, if it has one.
        now: When.
    """
    names = [custom_id for custom_id, _ in replaced]
    attempts = {
        row["custom_id"]: row
        for row in db.rows(
            "SELECT a.*, (SELECT count(*) FROM earlier_outcomes e WHERE e.comparison_id ="
            " a.comparison_id AND e.attempt = a.attempt) AS n_earlier"
            " FROM attempts a WHERE custom_id IN (SELECT unnest(?))",
            [names],
        )
    }
    rows = []
    for custom_id, comparison in replaced:
        attempt = attempts[custom_id]
        revision = int(attempt.pop("n_earlier")) + 1
        rows.append(
            {
                "batch_id": attempt["batch_id"],
                "comparison_id": attempt["comparison_id"],
                "attempt": attempt["attempt"],
                "revision": revision,
                "attempt_row": plain(attempt),
                "comparison_row": plain(comparison),
                "replaced_at": now,
            }
        )
    db.insert("earlier_outcomes", rows)


def plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a row as JSON can hold it."""
    if row is None:
        return None
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}


def _mark_out_of_date(db: Session, batch_id: str, now: datetime) -> None:
    """Have an ended batch scored, graded and published anew by the usual steps."""
    db.execute("UPDATE batches SET late_rows_at = ? WHERE batch_id = ?", [now, batch_id])
    db.execute("DELETE FROM batch_report WHERE batch_id = ?", [batch_id])


def _end_without_reply(
    db: Session, job: ProviderJob, read: ReadReply, now: datetime, *, is_in_doubt: bool
) -> Counter[RequestOutcome]:
    """End every request of a job that has no row; return how many ended in which way."""
    outcomes: Counter[RequestOutcome] = Counter()
    while rows := db.rows(
        "SELECT * FROM attempts WHERE submission_key = ? AND outcome IS NULL"
        " ORDER BY comparison_id LIMIT ?",
        [job.submission_key, ROWS_AT_ONCE],
    ):
        ended = [attempt_row(row, read, 0.0, now) for row in rows]
        if is_in_doubt:
            # What it comes to is entered for all of them together.
            ended = [row | {"in_doubt_usd": 0.0} for row in ended]
        db.insert("attempts", ended, on_conflict="replace")
        outcomes[read.outcome] += len(rows)
    return outcomes


def _given_up(missing: MissingRows) -> ReadReply:
    """Return what a request counts as whose row may have been paid for and is not waited for."""
    return ReadReply(
        RequestOutcome.MISSING, None, None, IN_DOUBT, missing.awaited.reason, may_retry=False
    )


def _keep_money(
    db: Session, record: BatchRecord, job: ProviderJob, missing: MissingRows | None, now: datetime
) -> float:
    """Enter what a job's rows cost and what its missing ones may have; return the bill, in USD."""
    if missing is not None:
        put_in_doubt(db, job, missing.n_owed)
    row = db.one(
        "SELECT coalesce(sum(cost_usd ORDER BY comparison_id), 0) AS usd FROM attempts"
        " WHERE submission_key = ?",
        [job.submission_key],
    )
    billed = float(row["usd"]) if row else 0.0
    charges.bill(db, job, billed, now)
    if job.is_batched:
        price = record.judge(job.judge_id).price
        charges.note_rows_in_doubt(db, job, price, billed, now)
    return billed


def _require_every_outcome(db: Session, job: ProviderJob) -> None:
    row = db.one(
        "SELECT count(outcome) AS n FROM attempts WHERE submission_key = ?", [job.submission_key]
    )
    n_ended = int(row["n"]) if row else 0
    if n_ended != job.n_requests:
        msg = (
            f"Provider job {job.submission_key[:16]} of batch '{job.batch_id}' was meant to"
            f" carry {job.n_requests} requests, and {n_ended} have an outcome."
            " Nothing was settled: `cj store check` shows more."
        )
        raise StoreError(msg)


def _batch_state(db: Session, batch_id: str) -> dict[str, bool]:
    """Return whether a batch has ended or is to end, as the store has it in this transaction."""
    row = db.one(
        "SELECT state <> 'running' AS has_ended,"
        " cancel_requested AS is_cancelled"
        " FROM batches WHERE batch_id = ?",
        [batch_id],
    )
    return row or {"has_ended": True, "is_cancelled": True}


def _asked_with_replies(
    db: Session, record: BatchRecord, job: ProviderJob
) -> Iterator[list[dict[str, Any]]]:
    """Yield a job's attempts that have a raw reply nobody read, a part at a time, as planned.

    With them come those that were given up, where a row of theirs came after all.
    """
    last = 0
    while True:
        rows = db.rows(
            """
            WITH asked AS (
                SELECT a.*, p.sequence, p.essay_a, p.essay_b,
                       c.kind AS callback_kind, c.body
                FROM attempts a JOIN comparison_pairs p USING (comparison_id)
                JOIN callbacks c ON c.submission_key = $key
                    AND c.kind IN ('matched', 'failed', 'expired') AND c.custom_id = a.custom_id
                WHERE a.submission_key = $key AND p.sequence > $last
                  AND (a.outcome IS NULL OR a.in_doubt_usd IS NOT NULL)
                ORDER BY p.sequence LIMIT $most
            )
            SELECT asked.*, s.tokens_before, s.completion_before, s.cost_before,
                   s.first_requested_at
            FROM asked
            LEFT JOIN (
                SELECT comparison_id, sum(tokens_prompt) AS tokens_before,
                       sum(tokens_completion) AS completion_before, sum(cost_usd) AS cost_before,
                       min(requested_at) AS first_requested_at
                FROM attempts SEMI JOIN asked USING (comparison_id)
                WHERE batch_id = $batch AND submission_key <> $key AND outcome IS NOT NULL
                GROUP BY ALL
            ) s ON s.comparison_id = asked.comparison_id
            ORDER BY asked.sequence
            """,
            {
                "batch": record.batch_id,
                "key": job.submission_key,
                "last": last,
                "most": ROWS_AT_ONCE,
            },
        )
        if not rows:
            return
        last = rows[-1]["sequence"]
        yield rows


def bill_of(row: Mapping[str, Any], read: ReadReply, price: Price, *, batched: bool) -> float:
    """Return what a request cost, in USD.

    An answer that does not tell its tokens was paid for all the same: it is billed at the most it
    can have cost, and marked. What failed, expired or never came is not billed by any provider.
    """
    if read.reply is not None and read.reply.usage is not None:
        return cost_usd(price, read.reply.usage, batched=batched)
    return (row["reserved_usd"] or 0.0) if _was_answered(read) else 0.0


def _was_answered(read: ReadReply) -> bool:
    return read.outcome in PAID_FOR


def fail_exhausted(
    db: Session, record: BatchRecord, now: datetime, *, give_up: bool = False
) -> None:
    """End as failed every comparison whose last attempt failed and may not be asked again.

    Args:
        db: A session that may write.
        record: The batch.
        now: When they ended.
        give_up: Whether nothing of this batch may be asked again, whatever failed.
    """
    rows = db.rows(
        """
        SELECT p.*, a.attempt, a.custom_id, a.outcome, a.may_retry, a.prompt_sha256,
               t.tokens_prompt, t.tokens_completion, t.cost_usd, t.started_at, t.completed_at,
               k.n_of_its_kind
        FROM comparison_pairs p
        ANTI JOIN comparisons c USING (comparison_id)
        JOIN (
            SELECT comparison_id, max(attempt) AS attempt,
                   coalesce(sum(tokens_prompt), 0) AS tokens_prompt,
                   coalesce(sum(tokens_completion), 0) AS tokens_completion,
                   coalesce(sum(cost_usd), 0) AS cost_usd,
                   min(requested_at) AS started_at, max(completed_at) AS completed_at
            FROM attempts WHERE batch_id = $batch GROUP BY comparison_id
        ) t USING (comparison_id)
        JOIN attempts a ON a.comparison_id = t.comparison_id AND a.attempt = t.attempt
        JOIN (
            SELECT comparison_id, outcome, count(*) AS n_of_its_kind
            FROM attempts WHERE batch_id = $batch GROUP BY comparison_id, outcome
        ) k ON k.comparison_id = a.comparison_id AND k.outcome = a.outcome
        WHERE p.batch_id = $batch AND a.outcome IS NOT NULL
        """,
        {"batch": record.batch_id},
    )
    most = record.settings.max_attempts
    ended = [
        row
        for row in rows
        if give_up
        or not may_ask_again(
            RequestOutcome(row["outcome"]),
            row["n_of_its_kind"],
            row["attempt"],
            most,
            may_retry=row["may_retry"],
        )
    ]
    db.insert("comparisons", [failure_row(row, now) for row in ended], on_conflict="ignore")


def _without_reply(job: ProviderJob) -> ReadReply:
    """Return why a request has no reply, as far as its job's own end tells."""
    message = job.error or "No reply came for this request."
    if job.outcome == JobOutcome.FAILED:
        # The provider took none of it: sent again unchanged, only want of room would pass.
        code = job.error_code
        may_retry = code in CAPACITY_CODES
        return ReadReply(RequestOutcome.PROVIDER_ERROR, None, None, code, message, may_retry)
    outcome = _OUTCOME_WITHOUT_REPLY.get(job.outcome, RequestOutcome.MISSING)
    return ReadReply(outcome, None, None, None, message, may_retry=True)


def attempt_row(
    row: Mapping[str, Any], read: ReadReply, cost: float, now: datetime
) -> dict[str, Any]:
    """Return the row of `attempts` for a request that was read."""
    usage = read.reply.usage if read.reply else None
    return {
        "custom_id": row["custom_id"],
        "reserved_usd": row["reserved_usd"],
        "n_prompt_bytes": row["n_prompt_bytes"],
        "in_doubt_usd": None,
        "has_usage": usage is not None if _was_answered(read) else None,
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "comparison_id": row["comparison_id"],
        "attempt": row["attempt"],
        "submission_key": row["submission_key"],
        "judge_id": row["judge_id"],
        "prompt_sha256": row["prompt_sha256"],
        "outcome": read.outcome.value,
        "error_code": read.error_code,
        "error_message": read.error_message,
        "may_retry": read.may_retry,
        "tokens_prompt": usage.prompt if usage else 0,
        "tokens_cached": usage.cached if usage else 0,
        "tokens_cache_write": usage.cache_write_5m + usage.cache_write_1h if usage else 0,
        "tokens_completion": usage.completion if usage else 0,
        "tokens_reasoning": usage.reasoning if usage else 0,
        "cost_usd": cost,
        "requested_at": row["requested_at"],
        "completed_at": now,
    }


def verdict_row(
    row: Mapping[str, Any], verdict: Verdict, attempt: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """Return the row of `comparisons` for a request that brought a verdict."""
    sides = {"A": row["essay_a"], "B": row["essay_b"]}
    losers = {"A": row["essay_b"], "B": row["essay_a"]}
    return {
        "comparison_id": row["comparison_id"],
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "sequence": row["sequence"],
        "judge_id": row["judge_id"],
        "essay_a": row["essay_a"],
        "essay_b": row["essay_b"],
        "status": "succeeded",
        "failure_reason": None,
        "winner": verdict.winner,
        "winner_id": sides.get(verdict.winner),
        "loser_id": losers.get(verdict.winner),
        "confidence": verdict.confidence,
        "justification": verdict.justification,
        "n_attempts": row["attempt"],
        "custom_id": row["custom_id"],
        "prompt_sha256": row["prompt_sha256"],
        "tokens_prompt": attempt["tokens_prompt"] + (row["tokens_before"] or 0),
        "tokens_completion": attempt["tokens_completion"] + (row["completion_before"] or 0),
        "cost_usd": attempt["cost_usd"] + (row["cost_before"] or 0),
        "started_at": row["first_requested_at"] or row["requested_at"],
        "completed_at": now,
    }


def failure_row(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the row of `comparisons` for one that failed for good."""
    return {
        "comparison_id": row["comparison_id"],
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "sequence": row["sequence"],
        "judge_id": row["judge_id"],
        "essay_a": row["essay_a"],
        "essay_b": row["essay_b"],
        "status": "failed",
        "failure_reason": row["outcome"],
        "winner": None,
        "winner_id": None,
        "loser_id": None,
        "confidence": None,
        "justification": None,
        "n_attempts": row["attempt"],
        "custom_id": row["custom_id"],
        "prompt_sha256": row["prompt_sha256"],
        "tokens_prompt": row["tokens_prompt"],
        "tokens_completion": row["tokens_completion"],
        "cost_usd": row["cost_usd"],
        "started_at": row["started_at"],
        "completed_at": row["completed_at"] or now,
    }

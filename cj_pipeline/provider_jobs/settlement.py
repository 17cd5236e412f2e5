"""Replies become outcomes, outcomes become ended comparisons, and reservations become bills.

Every request of a provider job gets exactly one outcome, a missing reply being one of them, so
that requested = succeeded + failed by kind + missing holds for each job, always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.diagnostics.answering_models import AskedJudge
from cj_pipeline.errors import StoreError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompt_window import PromptWindow, SentAndCounted, find_window
from cj_pipeline.provider_jobs import charges, ledger
from cj_pipeline.provider_jobs.download import Download
from cj_pipeline.provider_jobs.ledger import AwaitedRows, ProviderJob
from cj_pipeline.provider_jobs.missing_rows import (
    IN_DOUBT,
    MissingRows,
    Trouble,
    clear_doubt,
    missing_rows,
    put_in_doubt,
)
from cj_pipeline.provider_jobs.replies import (
    ReadReply,
    attempt_row,
    bill_of,
    evidence_of,
    failure_row,
    plain,
    read_or_missing,
    sent_and_counted,
    verdict_row,
    without_reply,
    without_the_cut,
)
from cj_pipeline.providers.base import NOT_THE_REQUESTS_FAULT, Parser
from cj_pipeline.queries.batch_record import BatchRecord
from cj_pipeline.store.session import Session

log = structlog.get_logger()

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
        read = without_reply(job) if missing is None else _given_up(missing)
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
        replies = [
            read_or_missing(parse, judge, job, row["body"], row["callback_kind"]) for row in asked
        ]
        window = _prompt_window(db, job, asked, replies)
        for row, as_read in zip(asked, replies, strict=True):
            read = as_read if window is None else without_the_cut(row, as_read, window)
            cost = bill_of(row, read, judge.price, now, batched=job.is_batched)
            evidence = evidence_of(row, read, judge.price)
            attempts.append(attempt_row(row, read, cost, now, evidence=evidence))
            if read.verdict is not None:
                verdicts.append(verdict_row(row, read.verdict, attempts[-1], now))
            outcomes[read.outcome] += 1
        if not has_ended or job.incomplete_since is not None:
            _keep_verdicts(db, asked, verdicts, now)
            if has_ended and verdicts:
                _mark_out_of_date(db, record.batch_id, now)
        db.insert("attempts", attempts, on_conflict="replace")
        _warn_of_strangers(judge, job, attempts)
    return outcomes


def _warn_of_strangers(
    judge: Judge, job: ProviderJob, attempts: Sequence[Mapping[str, Any]]
) -> None:
    """Tell the log where answers bear another model's name than was asked for."""
    asked = AskedJudge.from_definition(judge.definition())
    names = {row["answered_model"] for row in attempts if row["answered_model"]}
    strangers = sorted(name for name in names if not asked.may_be(name))
    if strangers:
        log.warning(
            "another_model_answered",
            batch_id=job.batch_id,
            submission_key=job.submission_key,
            asked=judge.model,
            answered=strangers,
        )


def _prompt_window(
    db: Session,
    job: ProviderJob,
    asked: Sequence[Mapping[str, Any]],
    replies: Sequence[ReadReply],
) -> PromptWindow | None:
    """Return the window that a judge's prompts are cut to, by its answers in this batch so far."""
    told = db.records(
        SentAndCounted,
        "SELECT n_prompt_bytes AS n_bytes, tokens_prompt AS n_tokens FROM attempts"
        " WHERE batch_id = ? AND judge_id = ? AND usage_evidence = 'reported'"
        " AND n_prompt_bytes IS NOT NULL AND outcome IN ('succeeded', 'prompt_cut')"
        " ORDER BY comparison_id LIMIT ?",
        [job.batch_id, job.judge_id, ROWS_AT_ONCE],
    )
    new = [sent_and_counted(row, read) for row, read in zip(asked, replies, strict=True)]
    return find_window([*told, *filter(None, new)])


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
               k.n_of_its_kind, t.n_without_fault
        FROM comparison_pairs p
        ANTI JOIN comparisons c USING (comparison_id)
        JOIN (
            SELECT comparison_id, max(attempt) AS attempt,
                   coalesce(sum(tokens_prompt), 0) AS tokens_prompt,
                   coalesce(sum(tokens_completion), 0) AS tokens_completion,
                   coalesce(sum(cost_usd), 0) AS cost_usd,
                   count(*) FILTER (error_code IN (SELECT unnest($codes))
                                    OR x.judge_id <> q.judge_id) AS n_without_fault,
                   min(requested_at) AS started_at, max(completed_at) AS completed_at
            FROM attempts x JOIN comparison_pairs q USING (comparison_id)
            WHERE x.batch_id = $batch GROUP BY comparison_id
        ) t USING (comparison_id)
        JOIN attempts a ON a.comparison_id = t.comparison_id AND a.attempt = t.attempt
        JOIN (
            SELECT comparison_id, outcome,
                   count(*) FILTER (coalesce(error_code, '') NOT IN (SELECT unnest($codes)))
                       AS n_of_its_kind
            FROM attempts x JOIN comparison_pairs q USING (comparison_id, judge_id)
            WHERE x.batch_id = $batch GROUP BY comparison_id, outcome
        ) k ON k.comparison_id = a.comparison_id AND k.outcome = a.outcome
        WHERE p.batch_id = $batch AND a.outcome IS NOT NULL AND a.judge_id = p.judge_id
          -- Another judge has taken the place of this one, and asks anew.
          AND ($give_up OR p.judge_id NOT IN (
              SELECT judge_id FROM judges WHERE batch_id = $batch AND replaced_by IS NOT NULL
          ))
        """,
        {
            "batch": record.batch_id,
            "codes": sorted(NOT_THE_REQUESTS_FAULT),
            "give_up": give_up,
        },
    )
    most = record.settings.max_attempts
    ended = [
        row
        for row in rows
        if give_up
        or not may_ask_again(
            RequestOutcome(row["outcome"]),
            row["n_of_its_kind"],
            row["attempt"] - row["n_without_fault"],
            most,
            may_retry=row["may_retry"],
        )
    ]
    db.insert("comparisons", [failure_row(row, now) for row in ended], on_conflict="ignore")

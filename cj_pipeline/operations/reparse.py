"""Stored callbacks read anew: a better parser costs no second question.

What a request counted as before is kept in `earlier_outcomes`; callbacks are never touched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.provider_jobs.charges import rebill
from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob, jobs_of_batch
from cj_pipeline.provider_jobs.replies import (
    attempt_row,
    bill_of,
    evidence_of,
    failure_row,
    plain,
    read_reply,
    verdict_row,
)
from cj_pipeline.providers.base import Parser, RawLine
from cj_pipeline.providers.registry import open_parser
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import matched_callbacks
from cj_pipeline.steps.decide import decide_again
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.project import project
from cj_pipeline.steps.publish import publish
from cj_pipeline.store.maintenance import CALLBACKS_FOLDER
from cj_pipeline.store.session import Session

log = structlog.get_logger()

_READ = (
    "outcome",
    "error_code",
    "error_message",
    "may_retry",
    "tokens_prompt",
    "tokens_cached",
    "tokens_cache_write",
    "tokens_completion",
    "tokens_reasoning",
)
_JUDGED = ("status", "failure_reason", "winner", "confidence", "justification")


@dataclass(frozen=True)
class ReparsedRequest:
    """A request that reads otherwise now; an outcome is followed by the winner, if it has one."""

    comparison_id: str
    attempt: int
    before: str
    after: str


@dataclass(frozen=True)
class Reparsed:
    """What reading a batch's callbacks anew came to.

    Attributes:
        n_read: Requests whose callback was read.
        n_unread: Requests that had a reply once and whose callback is gone: they stay as they are.
        changes: Requests that read otherwise now.
        n_comparisons: Comparisons that change with them.
        is_applied: Whether the changes were kept.
        state: Of the batch afterwards.
        end_reason: Likewise.
        could_go_on: Whether the batch ended for want of verdicts that it now has, and with budget
            left: scores and grades are as good as those it has.
    """

    n_read: int
    n_unread: int
    changes: tuple[ReparsedRequest, ...]
    n_comparisons: int
    is_applied: bool
    state: str
    end_reason: str | None
    could_go_on: bool = False

    @property
    def kinds(self) -> dict[str, int]:
        """How many requests change from what to what."""
        return dict(Counter(f"{change.before} → {change.after}" for change in self.changes))


@dataclass(frozen=True)
class _Stored:
    """A batch's rows as they are: attempts under their custom ids, the others by comparison."""

    attempts: dict[str, dict[str, Any]]
    of_comparison: dict[str, list[dict[str, Any]]]
    of_job: dict[str, list[dict[str, Any]]]
    comparisons: dict[str, dict[str, Any]]
    pairs: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Anew:
    """Rows as they are and as they would be; attempts by custom id, comparisons by id."""

    attempts: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    comparisons: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]]
    n_read: int
    n_unread: int


def reparse(runtime: Runtime, batch_id: str, *, apply: bool = False) -> Reparsed:
    """Read a batch's stored callbacks with the current parser; say or keep what changes.

    Nobody is asked and nothing is paid, so it takes no key. A batch that has ended is scored,
    decided and graded again by the usual steps; one that goes on simply has more verdicts, or
    fewer.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        apply: Whether to keep what changes; otherwise it is only said.
    """
    now = runtime.clock()
    if apply:
        with runtime.store.write() as db:
            record = load_batch(db, batch_id)
            anew = _reparsed(runtime, db, record, now)
            _keep(db, record, anew, now)
    else:
        with runtime.store.read() as db:
            record = load_batch(db, batch_id)
            anew = _reparsed(runtime, db, record, now)
    changed = bool(anew.attempts or anew.comparisons)
    could_go_on = False
    if apply and changed and record.has_ended:
        fit(runtime, batch_id)
        could_go_on = not decide_again(runtime, batch_id)
        project(runtime, batch_id, again=True)
        publish(runtime, batch_id)
    with runtime.store.read() as db:
        after = load_batch(db, batch_id)
    changes = tuple(_change(anew, *rows) for rows in anew.attempts.values())
    log.info(
        "callbacks_read_anew",
        batch_id=batch_id,
        n_read=anew.n_read,
        n_changed=len(changes),
        n_comparisons=len(anew.comparisons),
        is_applied=apply,
    )
    return Reparsed(
        n_read=anew.n_read,
        n_unread=anew.n_unread,
        changes=changes,
        n_comparisons=len(anew.comparisons),
        is_applied=apply,
        state=after.state,
        end_reason=after.end_reason,
        could_go_on=could_go_on,
    )


def _reparsed(runtime: Runtime, db: Session, record: BatchRecord, now: datetime) -> _Anew:
    stored = _stored(db, record.batch_id)
    changed: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    verdicts: dict[str, dict[str, Any]] = {}
    n_read = n_unread = 0
    for job, lines in _settled_jobs(runtime, db, record.batch_id):
        judge = record.judge(job.judge_id)
        parse = open_parser(judge)
        asked = [row for row in stored.of_job[job.submission_key] if row["outcome"] is not None]
        bodies = _bodies(parse, job, lines, {row["custom_id"] for row in asked})
        for row in asked:
            custom_id = row["custom_id"]
            if row["outcome"] == RequestOutcome.PROMPT_CUT:
                continue  # what the judge was not shown no parser can read
            if custom_id not in bodies:
                n_unread += bool(row["tokens_prompt"] or row["tokens_completion"])
                continue
            n_read += 1
            read = read_reply(parse, judge, bodies[custom_id])
            ended_at = row["completed_at"] or now
            cost = bill_of(row, read, judge.price, ended_at, batched=job.is_batched)
            evidence = evidence_of(row, read, judge.price)
            fresh = row | attempt_row(row, read, cost, row["completed_at"], evidence=evidence)
            costs_more = abs(cost - (row["cost_usd"] or 0.0)) > 1e-12
            if costs_more or any(fresh[name] != row[name] for name in _READ):
                changed[custom_id] = (row, fresh)
            if read.verdict is not None:
                asked_for = stored.pairs[row["comparison_id"]] | row | _sums_before(stored, row)
                verdicts[custom_id] = verdict_row(asked_for, read.verdict, fresh, ended_at)
    comparisons = _comparisons_anew(stored, changed, verdicts, now)
    return _Anew(changed, comparisons, n_read, n_unread)


def _comparisons_anew(
    stored: _Stored,
    changed: Mapping[str, tuple[dict[str, Any], dict[str, Any]]],
    verdicts: Mapping[str, dict[str, Any]],
    now: datetime,
) -> dict[str, tuple[dict[str, Any] | None, dict[str, Any]]]:
    """Return the comparisons that change.

    The attempt that decided one goes on deciding it while it holds a verdict; otherwise the first
    that holds one does.
    """
    found: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {}
    concerned = {row["comparison_id"] for row, _ in changed.values()}
    for comparison_id in concerned | {row["comparison_id"] for row in verdicts.values()}:
        before = stored.comparisons.get(comparison_id)
        rows = [
            changed[row["custom_id"]][1] if row["custom_id"] in changed else row
            for row in stored.of_comparison[comparison_id]
        ]
        able = [row["custom_id"] for row in rows if row["custom_id"] in verdicts]
        if able:
            decided_by = before["custom_id"] if before else ""
            after = verdicts[decided_by if decided_by in able else able[0]]
        elif before is None or before["status"] == "failed":
            # Nothing new: whether it is asked again is not decided here.
            continue
        else:
            sums = {
                name: sum(row[name] or 0 for row in rows)
                for name in ("tokens_prompt", "tokens_completion", "cost_usd")
            }
            times = {
                "started_at": rows[0]["requested_at"],
                "completed_at": rows[-1]["completed_at"],
            }
            after = failure_row(stored.pairs[comparison_id] | rows[-1] | sums | times, now)
        if before is None or any(before[name] != after[name] for name in _JUDGED):
            found[comparison_id] = (before, after)
    return found


def _keep(db: Session, record: BatchRecord, anew: _Anew, now: datetime) -> None:
    """Keep what changes, and beside it what was there before."""
    revisions = {
        (row["comparison_id"], row["attempt"]): row["n"]
        for row in db.rows(
            "SELECT comparison_id, attempt, count(*) AS n FROM earlier_outcomes"
            " WHERE batch_id = ? GROUP BY ALL",
            [record.batch_id],
        )
    }
    of_comparison = {
        comparison_id: before
        for comparison_id, (before, _) in anew.comparisons.items()
        if before is not None
    }
    db.insert(
        "earlier_outcomes",
        [
            {
                "batch_id": record.batch_id,
                "comparison_id": before["comparison_id"],
                "attempt": before["attempt"],
                "revision": revisions.get((before["comparison_id"], before["attempt"]), 0) + 1,
                "attempt_row": plain(before),
                "comparison_row": plain(of_comparison.get(before["comparison_id"])),
                "replaced_at": now,
            }
            for before, _ in anew.attempts.values()
        ],
    )
    db.insert("attempts", [after for _, after in anew.attempts.values()], on_conflict="replace")
    db.insert(
        "comparisons", [after for _, after in anew.comparisons.values()], on_conflict="replace"
    )
    if not anew.attempts:
        return
    bills = db.rows(
        "SELECT submission_key, sum(cost_usd) AS usd FROM attempts WHERE submission_key IN"
        " (SELECT submission_key FROM provider_jobs WHERE batch_id = ? AND state = 'settled')"
        " GROUP BY submission_key",
        [record.batch_id],
    )
    rebill(db, {row["submission_key"]: float(row["usd"] or 0.0) for row in bills})


def _settled_jobs(
    runtime: Runtime, db: Session, batch_id: str
) -> Iterator[tuple[ProviderJob, list[RawLine]]]:
    """Yield each settled job with its raw lines in the order they came, archived ones too."""
    archive = runtime.home / CALLBACKS_FOLDER / f"{batch_id}.parquet"
    for job in jobs_of_batch(db, batch_id, {JobState.SETTLED}):
        query = (
            "SELECT source, line, body FROM {} WHERE submission_key = ? ORDER BY source DESC, line"
        )
        rows = db.rows(query.format("callbacks"), [job.submission_key])
        if not rows and archive.exists():
            rows = db.rows(query.format("read_parquet(?)"), [str(archive), job.submission_key])
        yield job, [RawLine(row["source"], row["line"], row["body"]) for row in rows]


def _bodies(
    parse: Parser, job: ProviderJob, lines: list[RawLine], asked: set[str]
) -> dict[str, str]:
    """Return the reply of each request that has one, matched anew."""
    return {
        row["custom_id"]: row["body"]
        for row in matched_callbacks(parse, job, lines, asked)
        if row["kind"] == "matched"
    }


def _stored(db: Session, batch_id: str) -> _Stored:
    attempts = db.rows(
        "SELECT * FROM attempts WHERE batch_id = ? ORDER BY comparison_id, attempt", [batch_id]
    )
    comparisons = db.rows("SELECT * FROM comparisons WHERE batch_id = ?", [batch_id])
    pairs = db.rows("SELECT * FROM comparison_pairs WHERE batch_id = ?", [batch_id])
    of_comparison: dict[str, list[dict[str, Any]]] = defaultdict(list)
    of_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in attempts:
        of_comparison[row["comparison_id"]].append(row)
        of_job[row["submission_key"]].append(row)
    return _Stored(
        attempts={row["custom_id"]: row for row in attempts},
        of_comparison=of_comparison,
        of_job=of_job,
        comparisons={row["comparison_id"]: row for row in comparisons},
        pairs={row["comparison_id"]: row for row in pairs},
    )


def _sums_before(stored: _Stored, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a comparison's other attempts came to, under the names `verdict_row` knows."""
    others = [
        other
        for other in stored.of_comparison[row["comparison_id"]]
        if other["custom_id"] != row["custom_id"] and other["outcome"] is not None
    ]
    return {
        "tokens_before": sum(other["tokens_prompt"] or 0 for other in others),
        "completion_before": sum(other["tokens_completion"] or 0 for other in others),
        "cost_before": sum(other["cost_usd"] or 0.0 for other in others),
        "first_requested_at": min(other["requested_at"] for other in [*others, row]),
    }


def _change(anew: _Anew, before: Mapping[str, Any], after: Mapping[str, Any]) -> ReparsedRequest:
    was, becomes = anew.comparisons.get(before["comparison_id"], (None, None))
    return ReparsedRequest(
        comparison_id=before["comparison_id"],
        attempt=before["attempt"],
        before=_worded(before, was),
        after=_worded(after, becomes),
    )


def _worded(attempt: Mapping[str, Any], comparison: Mapping[str, Any] | None) -> str:
    if comparison and comparison["winner"] and comparison["custom_id"] == attempt["custom_id"]:
        return f"{attempt['outcome']} ({comparison['winner']})"
    return str(attempt["outcome"])

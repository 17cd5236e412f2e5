"""The status of batches, for the terminal and for Dagster's pages; read from the live store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.stopping.continuation import EndReason
from cj_pipeline.store.session import Session

_WAITS: Mapping[str, str] = {
    WaitingFor.KEY: "a key",
    WaitingFor.CREDIT: "credit",
    WaitingFor.PERSON: "a person",
    WaitingFor.ROWS: "missing rows",
    WaitingFor.ROOM: "room at the provider",
    WaitingFor.SIGN_OFF: "a release",
}

# The counts are coalesced outside: over no rows, a correlated count is NULL where DuckDB's server
# (Quack, 1.5) plans the query.
_OVERVIEW = """
SELECT b.batch_id, b.title, b.state, b.end_reason, b.problems, b.created_at, b.ended_at,
       coalesce((SELECT count(*) FROM essays e WHERE e.batch_id = b.batch_id), 0) AS n_essays,
       coalesce((SELECT max(wave) FROM comparison_pairs p WHERE p.batch_id = b.batch_id), 0)
           AS n_waves,
       coalesce((SELECT count(*) FROM comparisons c
                 WHERE c.batch_id = b.batch_id AND c.status = 'succeeded'), 0) AS n_completed,
       coalesce((SELECT count(*) FROM comparisons c
                 WHERE c.batch_id = b.batch_id AND c.status = 'failed'), 0) AS n_failed,
       coalesce((SELECT sum(usd) FROM ledger l
                 WHERE l.batch_id = b.batch_id AND l.kind = 'billed'), 0) AS cost_usd,
       EXISTS (FROM batch_report r WHERE r.batch_id = b.batch_id) AS has_report,
       w.waiting_for, w.reason AS waiting_reason,
       f.outcome AS failed_as, f.error_code, f.error_message, f.n_requests AS n_failed_so
FROM batches b
LEFT JOIN v_batch_waiting w USING (batch_id)
LEFT JOIN v_commonest_failures f USING (batch_id)
"""

_ENDED_BY_FAILURES = frozenset(
    {EndReason.NO_SUCCESSES, EndReason.LOW_SUCCESS_RATE, EndReason.CANARY_FAILED}
)


def batch_overview(db: Session, batch_id: str | None = None) -> list[dict[str, Any]]:
    """Return one row per batch, newest first.

    Raises:
        UnknownBatchError: If a batch is named that the store does not have.
    """
    if batch_id is None:
        return db.rows(_OVERVIEW + " ORDER BY b.created_at DESC, b.batch_id")
    rows = db.rows(_OVERVIEW + " WHERE b.batch_id = ?", [batch_id])
    if not rows:
        msg = f"No batch '{batch_id}' is in the store: `cj status` lists those that are."
        raise UnknownBatchError(msg)
    return rows


def running_batches(db: Session) -> list[dict[str, Any]]:
    """Return the batches under way, each with its wave and its comparisons, the oldest first."""
    return db.rows(
        """
        SELECT b.batch_id,
               coalesce((SELECT max(wave) FROM comparison_pairs p WHERE p.batch_id = b.batch_id), 0)
                   AS wave,
               coalesce((SELECT count(DISTINCT comparison_id) FROM attempts a
                         WHERE a.batch_id = b.batch_id), 0) AS n_asked,
               coalesce((SELECT count(*) FROM comparisons c WHERE c.batch_id = b.batch_id), 0)
                   AS n_ended
        FROM batches b WHERE b.state = 'running' ORDER BY b.created_at, b.batch_id
        """
    )


def what_hinders(row: Mapping[str, Any]) -> str:
    """Return what a batch waits for or failed by, in words; empty where nothing hinders it.

    Args:
        row: One of `batch_overview`'s.
    """
    if row["waiting_for"] is not None:
        return (
            f"waits for {_WAITS[row['waiting_for']]}: {row['waiting_reason'] or 'no reason given'}"
        )
    if row["end_reason"] in _ENDED_BY_FAILURES and row["failed_as"] is not None:
        kind = f"{row['n_failed_so']} requests failed as {row['failed_as'].replace('_', ' ')}"
        return ": ".join([kind, *filter(None, (row["error_code"], row["error_message"]))])
    return ""


def open_jobs(db: Session, batch_id: str) -> list[dict[str, Any]]:
    """Return a batch's provider jobs that are not done: how far each is, and its last and next
    look, the oldest first.
    """
    return db.rows(
        """
        SELECT submission_key[:8] AS job, provider, model, state, phase, provider_job_id,
               provider_status, waiting_for, n_requests,
               coalesce(n_completed, 0) + coalesce(n_failed, 0) AS n_done,
               submitted_at, polled_at AS last_look, next_poll_at AS next_look, error
        FROM v_job_phases WHERE batch_id = ? AND phase <> 'done'
        ORDER BY intended_at, submission_key
        """,
        [batch_id],
    )


def put_off(db: Session, batch_id: str | None = None) -> list[tuple[str, str]]:
    """Return what of each batch was put off, why and until when: the batch, and the line.

    As after a provider asked to be left alone for an hour, which nothing else shows.
    """
    rows = db.rows(
        """
        SELECT batch_id, error, max(next_poll_at) AS until FROM v_job_phases
        WHERE phase IN ('unsent', 'calling') AND waiting_for IS NULL AND error IS NOT NULL
          AND next_poll_at IS NOT NULL AND ($batch IS NULL OR batch_id = $batch)
        GROUP BY batch_id, error ORDER BY batch_id, error
        """,
        {"batch": batch_id},
    )
    return [
        (row["batch_id"], f"put off until {row['until']:%Y-%m-%d %H:%M} UTC: {row['error']}")
        for row in rows
    ]


@dataclass(frozen=True)
class ModelUse:
    """What one model was asked in a batch, and what that used.

    Attributes:
        provider: The service.
        model: As the service calls it.
        n_comparisons: Different ones.
        n_calls: Requests, repeated ones among them.
        tokens_prompt: In all of them.
        tokens_completion: Likewise.
        cost_usd: Billed.
    """

    provider: str
    model: str
    n_comparisons: int
    n_calls: int
    tokens_prompt: int
    tokens_completion: int
    cost_usd: float

    @property
    def n_retries(self) -> int:
        """Requests beyond one for each comparison."""
        return self.n_calls - self.n_comparisons


def models_used(db: Session, batch_id: str) -> list[ModelUse]:
    """Return what each model of a batch was asked, people aside."""
    return db.records(
        ModelUse,
        """
        SELECT j.provider, j.model,
               count(DISTINCT a.comparison_id) AS n_comparisons, count(*) AS n_calls,
               CAST(coalesce(sum(a.tokens_prompt), 0) AS BIGINT) AS tokens_prompt,
               CAST(coalesce(sum(a.tokens_completion), 0) AS BIGINT) AS tokens_completion,
               coalesce(sum(a.cost_usd), 0) AS cost_usd
        FROM attempts a JOIN judges j USING (batch_id, judge_id)
        WHERE a.batch_id = ? AND j.provider <> 'human'
        GROUP BY j.provider, j.model ORDER BY j.provider, j.model
        """,
        [batch_id],
    )


def final_scores(db: Session, batch_id: str) -> list[dict[str, Any]]:
    """Return the latest scores, highest first, with the latest grades where there are any."""
    return db.rows(
        """
        SELECT s.rank, s.essay_id, coalesce(e.name, e.given_id, s.essay_id) AS called, s.score,
               s.standard_error, s.n_comparisons, coalesce(g.fine_grade, g.grade) AS grade,
               g.confidence, e.grade AS known_grade
        FROM essay_scores s
        JOIN essays e USING (batch_id, essay_id)
        LEFT JOIN grade_projections g ON g.batch_id = s.batch_id AND g.essay_id = s.essay_id
            AND g.revision = (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)
        WHERE s.batch_id = $batch
          AND s.wave = (SELECT max(wave) FROM essay_scores WHERE batch_id = $batch)
        ORDER BY s.rank, s.essay_id
        """,
        {"batch": batch_id},
    )


def grading_statement(db: Session, batch_id: str) -> str:
    """Return the plain words for why a batch was or was not graded; empty before that."""
    row = db.one(
        "SELECT statement FROM grading_reports WHERE batch_id = ? ORDER BY revision DESC LIMIT 1",
        [batch_id],
    )
    return str(row["statement"]) if row else ""


@dataclass(frozen=True)
class Output:
    """A file published for a batch, as the store records it (see `storage.published_files`)."""

    kind: str
    path: str
    sha256: str


def outputs(db: Session, batch_id: str) -> dict[str, Output]:
    """Return the files published for a batch, by kind: `artefact` and `report`."""
    found = db.records(
        Output,
        "SELECT 'artefact' AS kind, path, sha256 FROM run_artefact WHERE batch_id = $batch"
        " UNION ALL SELECT 'report', path, sha256 FROM batch_report WHERE batch_id = $batch",
        {"batch": batch_id},
    )
    return {each.kind: each for each in found}

"""The judges of a batch compared: agreement, position effect, speed and cost, from its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.diagnostics.judge_comparison import (
    JudgePair,
    JudgesCompared,
    JudgeSummary,
    by_judge,
    compare_verdicts,
    share_with_error,
)
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.store.session import Session


def compare_judges(db: Session, batch_id: str) -> JudgesCompared:
    """Return the judges of a batch compared with each other.

    Raises:
        UnknownBatchError: If the store has no such batch.
    """
    record = load_batch(db, batch_id)
    decided = db.rows(
        "SELECT judge_id, essay_a, essay_b, winner FROM comparisons"
        " WHERE batch_id = ? AND status = 'succeeded' ORDER BY sequence",
        [batch_id],
    )
    pairs, n_items, kappa = compare_verdicts(by_judge(decided))
    return JudgesCompared(
        judges=tuple(_summary(row) for row in _figures(db, batch_id)),
        pairs=_with_correlations(record.essay_ids, decided, pairs),
        n_items_of_all=n_items,
        fleiss_kappa=kappa,
    )


def _figures(db: Session, batch_id: str) -> list[dict[str, Any]]:
    return db.rows(
        """
        SELECT j.judge_id, j.name,
               count(c.winner) AS n_verdicts,
               count(*) FILTER (c.status = 'failed') AS n_failed,
               count(*) FILTER (c.winner = 'A') AS n_first,
               count(*) FILTER (c.winner IN ('A', 'B')) AS n_decided,
               count(*) FILTER (c.winner = 'tie') AS n_tied,
               avg(c.confidence) AS mean_confidence,
               sum(c.tokens_prompt + c.tokens_completion) AS tokens,
               sum(c.cost_usd) AS usd,
               (SELECT avg(l.latency_s) FROM live_calls l
                WHERE l.batch_id = $batch AND l.judge_id = j.judge_id) AS mean_latency_s
        FROM judges j LEFT JOIN comparisons c USING (batch_id, judge_id)
        WHERE j.batch_id = $batch GROUP BY j.judge_id, j.name ORDER BY j.name, j.judge_id
        """,
        {"batch": batch_id},
    )


def _summary(row: Mapping[str, Any]) -> JudgeSummary:
    n = row["n_verdicts"]
    share, error = share_with_error(row["n_first"], row["n_decided"])
    return JudgeSummary(
        judge_id=row["judge_id"],
        name=row["name"],
        n_verdicts=n,
        n_failed=row["n_failed"],
        share_first=share,
        share_first_error=error,
        share_tied=row["n_tied"] / n if n else None,
        mean_confidence=row["mean_confidence"],
        mean_latency_s=row["mean_latency_s"],
        tokens_per_verdict=float(row["tokens"]) / n if n else None,
        usd_per_verdict=row["usd"] / n if n else None,
    )


def _with_correlations(
    essay_ids: tuple[str, ...], decided: list[dict[str, Any]], pairs: tuple[JudgePair, ...]
) -> tuple[JudgePair, ...]:
    """Add how alike the judges' own scales rank the essays, where both have one."""
    if not pairs:
        return ()
    from cj_pipeline.diagnostics.panel import rank_correlation
    from cj_pipeline.scale.bradley_terry import fit_bradley_terry

    scales = {}
    for judge_id in {row["judge_id"] for row in decided}:
        own = [
            JudgedPair(row["essay_a"], row["essay_b"], row["winner"], judge_id)
            for row in decided
            if row["judge_id"] == judge_id
        ]
        try:
            scales[judge_id] = fit_bradley_terry(essay_ids, own)
        except UnscalableBatchError:
            continue
    return tuple(
        replace(pair, rank_correlation=rank_correlation(scales[pair.one], scales[pair.other]))
        if pair.one in scales and pair.other in scales
        else pair
        for pair in pairs
    )

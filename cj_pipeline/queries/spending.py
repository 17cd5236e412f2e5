"""Estimated, reserved and billed side by side, for a job, a judge or a batch.

The views `v_costs`, `v_judge_costs` and `v_batch_costs` show the same; prices: `judging.pricing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDING_USD = 1e-9
"""Sums of decimals, added up in different orders, differ by less."""

SENT_AS: Mapping[str, str] = {
    "provider_batch_api": "batch",
    "serial_bundle": "series",
    "per_request": "single calls",
}
"""How a provider job's requests went out, by batching mode."""


@dataclass(frozen=True)
class Spending:
    """What some provider jobs cost; all in USD.

    Attributes:
        n_jobs: Of these, single calls sent together count as one.
        n_requests: In all of them.
        estimated_usd: Expected before they left; None where none of them was estimated.
        reserved_usd: The most they could cost.
        still_reserved_usd: Of that, for jobs that are not settled.
        billed_usd: By the usage of the rows that came.
        possible_usd: What may have been paid for besides.
        provider_usd: By the providers' own counts of those jobs that have one; None without any.
        difference_usd: Those counts less the bills of the same jobs; None without any.
    """

    n_jobs: int
    n_requests: int
    estimated_usd: float | None
    reserved_usd: float
    still_reserved_usd: float
    billed_usd: float
    possible_usd: float
    provider_usd: float | None
    difference_usd: float | None


def spending(jobs: Sequence[Mapping[str, Any]]) -> Spending:
    """Return what these rows of `provider_jobs` come to together."""
    counted = [job for job in jobs if job.get("provider_usd") is not None]
    return Spending(
        n_jobs=len(jobs),
        n_requests=sum(job["n_requests"] for job in jobs),
        estimated_usd=_sum_or_none(job.get("estimated_usd") for job in jobs),
        reserved_usd=math.fsum(job["reserved_usd"] for job in jobs),
        still_reserved_usd=math.fsum(
            job["reserved_usd"] for job in jobs if job["billed_usd"] is None
        ),
        billed_usd=math.fsum(job["billed_usd"] or 0.0 for job in jobs),
        possible_usd=math.fsum(job.get("possible_usd") or 0.0 for job in jobs),
        provider_usd=_sum_or_none(job["provider_usd"] for job in counted),
        difference_usd=_sum_or_none(
            job["provider_usd"] - (job["billed_usd"] or 0.0) for job in counted
        ),
    )


def spending_by_judge(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Spending]:
    """Return what each judge's jobs come to, by judge id."""
    judge_ids = dict.fromkeys(job["judge_id"] for job in jobs)
    return {
        judge_id: spending([job for job in jobs if job["judge_id"] == judge_id])
        for judge_id in judge_ids
    }


def _sum_or_none(figures: Iterable[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return math.fsum(known) if known else None

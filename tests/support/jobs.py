"""Provider jobs for tests that need one and no batch around it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cj_pipeline.provider_jobs.ledger import JobState, ProviderJob

INTENDED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def provider_job(**values: Any) -> ProviderJob:
    """Return an intent of two requests for a judge of batch `b`; `values` replace its fields."""
    given = {
        "submission_key": "5" * 64,
        "batch_id": "b",
        "wave": 1,
        "judge_id": "judge",
        "batching_mode": "provider_batch_api",
        "provider": "openai",
        "model": "a-model",
        "account": "openai-000000000000",
        "state": JobState.INTENT,
        "n_requests": 2,
        "n_bytes": 2_000,
        "reserved_usd": 0.5,
        "intended_at": INTENDED_AT,
    }
    return ProviderJob(**(given | values))

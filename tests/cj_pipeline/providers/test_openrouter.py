"""OpenRouter's batches, that bear nothing of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cj_pipeline.errors import ProviderRefusedError
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.providers.openai import read_status
from cj_pipeline.providers.openrouter import as_batch
from tests.journeys.test_provider_contract import Conversation

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEY = "0123456789abcdef" * 4
SHOWN = {"id": "batch-1", "status": "completed", "created_at": int(NOW.timestamp())}


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        *((word, None) for word in ("validating", "in_progress", "finalizing", "cancelling")),
        ("completed", JobOutcome.COMPLETED),
        ("failed", JobOutcome.FAILED),
        ("expired", JobOutcome.EXPIRED),
        ("cancelled", JobOutcome.CANCELLED),
    ],
)
def test_each_of_its_words_has_its_meaning(word: str, outcome: JobOutcome | None) -> None:
    """And a failed one says why in `error`, for it has no list of errors."""
    error = {"message": "requests[1]: bad"} if word == "failed" else None

    status = read_status(as_batch({**SHOWN, "status": word, "error": error}), NOW)

    assert (status.outcome, status.error) == (outcome, error and error["message"])


def test_a_running_batch_may_be_ours_and_is_not_taken_for_certain(tmp_path: Path) -> None:
    """It is neither adopted nor bought again before its results tell."""
    talk = Conversation("quality-openrouter", tmp_path, latency_s=3600)
    job_id = talk.submit(3)

    found = talk.provider.find(KEY, talk.began, 3)

    assert [(job.job_id, job.is_certain, job.is_running) for job in found] == [
        (job_id, False, True)
    ]


def test_a_running_batch_of_another_size_is_not_ours(tmp_path: Path) -> None:
    """Its count is told once its requests were looked at."""
    talk = Conversation("quality-openrouter", tmp_path, faults=[{"kind": "stuck"}])
    talk.submit(3)

    assert talk.provider.find(KEY, talk.began, 4) == ()


def test_a_batch_that_was_refused_after_its_create_is_not_adopted(tmp_path: Path) -> None:
    """It judged nothing."""
    talk = Conversation("quality-openrouter", tmp_path, faults=[{"kind": "fails", "word": "bad"}])
    talk.ended(talk.submit(3))

    assert talk.provider.find(KEY, talk.began, 3) == ()


def test_what_an_expired_batch_finished_comes_page_by_page(tmp_path: Path) -> None:
    """Only a completed one shows its results."""
    talk = Conversation("quality-openrouter", tmp_path, faults=[{"kind": "expires", "share": 0.5}])
    job_id = talk.submit(20)

    assert talk.ended(job_id).outcome is JobOutcome.EXPIRED
    assert len(talk.replies(job_id)) == 10


def test_a_batch_that_cannot_be_stopped_is_said_to_go_on(tmp_path: Path) -> None:
    """Whoever cancels must know that it will be paid for."""
    talk = Conversation("quality-openrouter", tmp_path, latency_s=3600)

    status = talk.provider.cancel(talk.submit(2))

    assert status.state == "running"
    assert "no way to stop" in (status.warning or "")


def test_an_answer_states_its_cost(tmp_path: Path) -> None:
    """Which is its bill where the definition says so."""
    talk = Conversation("quality-openrouter", tmp_path)

    replies = talk.replies(talk.submit(2))

    assert all((reply.stated_usd or 0) > 0 for reply in replies)
    judge = load_judge("openrouter-gemini-flash-lite")
    assert judge.price.is_stated_by_answers
    assert judge.has_jobs


def test_more_requests_than_it_takes_are_refused_by_it(tmp_path: Path) -> None:
    """Our own limit is its own, so that a shard is split before."""
    talk = Conversation("quality-openrouter", tmp_path)

    assert talk.provider.limits.max_requests == 5_000
    with pytest.raises(ProviderRefusedError):
        talk.submit(5_001)

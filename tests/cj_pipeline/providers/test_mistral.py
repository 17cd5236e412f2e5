"""Mistral's jobs, in the words of OpenAI's batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.emulator.state import State
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.providers.base import JobOutcome
from cj_pipeline.providers.mistral import as_batch
from cj_pipeline.providers.openai import read_status
from cj_pipeline.providers.registry import open_provider
from tests.journeys.test_provider_contract import Conversation

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def job(**told: Any) -> dict[str, Any]:
    """Return a job as the public reference has it, with what a test tells instead."""
    usual = {
        "id": "5f3a",
        "object": "batch",
        "input_files": ["file-1"],
        "metadata": {"submission_key": "k"},
        "endpoint": "/v1/chat/completions",
        "model": "mistral-medium-3-5",
        "output_file": "out",
        "error_file": None,
        "errors": [],
        "status": "SUCCESS",
        "created_at": int(NOW.timestamp()) - 3600,
        "total_requests": 4,
        "completed_requests": 4,
        "succeeded_requests": 4,
        "failed_requests": 0,
        "completed_at": int(NOW.timestamp()) - 60,
    }
    return usual | told


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("QUEUED", None),
        ("RUNNING", None),
        ("CANCELLATION_REQUESTED", None),
        ("SUCCESS", JobOutcome.COMPLETED),
        ("FAILED", JobOutcome.FAILED),
        ("TIMEOUT_EXCEEDED", JobOutcome.EXPIRED),
        ("CANCELLED", JobOutcome.CANCELLED),
        ("PAUSED_BY_A_NEW_WORD", None),
    ],
)
def test_each_of_its_words_has_its_meaning(word: str, outcome: JobOutcome | None) -> None:
    """A word nobody knows counts as running, and is shown."""
    output = None if word == "PAUSED_BY_A_NEW_WORD" else "out"

    status = read_status(as_batch(job(status=word, output_file=output)), NOW)

    assert status.outcome is outcome
    assert (status.warning is not None) == (word == "PAUSED_BY_A_NEW_WORD")


def test_counts_that_are_all_zero_say_nothing_of_an_ended_job() -> None:
    """Else a job whose rows all came would pass for one that did nothing."""
    zeros = dict.fromkeys(
        ("total_requests", "completed_requests", "succeeded_requests", "failed_requests"), 0
    )

    status = read_status(as_batch(job(**zeros)), NOW)

    assert (status.n_completed, status.n_failed) == (None, None)


def test_a_result_file_whose_id_is_late_is_waited_for() -> None:
    """Ids may come after the state."""
    status = read_status(as_batch(job(output_file=None)), NOW)

    assert status.state == "running"


def test_a_job_refused_for_its_lines_says_why() -> None:
    """Whoever mends it needs the words."""
    told = {"status": "FAILED", "errors": [{"message": "line 3 is no JSON", "count": 1}]}

    status = read_status(as_batch(job(**told, output_file=None)), NOW)

    assert (status.outcome, status.error) == (JobOutcome.FAILED, "line 3 is no JSON")


def test_a_line_has_no_method_and_no_address(tmp_path: Path) -> None:
    """Its own service refuses fields that it does not know."""
    talk = Conversation("quality-mistral", tmp_path)

    request = talk.provider.build_request(talk.prompt(0), talk.judge, talk.custom_id(0))

    assert set(request) == {"custom_id", "body"}


def test_a_list_of_many_pages_is_searched_to_its_end(tmp_path: Path) -> None:
    """The job that is looked for may be the oldest of more than a page holds."""
    talk = Conversation("quality-mistral", tmp_path)
    sought = talk.submit(1)
    for number in range(101):
        talk.submit(1, key=f"{number:064x}")

    found = talk.provider.find("0123456789abcdef" * 4, talk.began, 1)

    assert [each.job_id for each in found] == [sought]


def test_a_job_made_when_our_clock_was_wrong_by_a_day_is_found(tmp_path: Path) -> None:
    """The list is asked for what was created since, less the clock's allowance."""
    talk = Conversation("quality-mistral", tmp_path)
    sought = talk.submit(1)

    found = talk.provider.find("0123456789abcdef" * 4, talk.began + timedelta(hours=25), 1)

    assert [each.job_id for each in found] == [sought]


def test_its_books_say_what_it_was_asked_to_keep(tmp_path: Path) -> None:
    """The key is on the job, and nothing else of ours."""
    talk = Conversation("quality-mistral", tmp_path)
    talk.submit(1)

    state = State(EmulatorConfig.from_environment({}, tmp_path))
    with state.read() as db:
        (request,) = [row["request"] for row in db.execute("SELECT request FROM jobs")]

    assert f'"metadata": {{"submission_key": "{"0123456789abcdef" * 4}"}}' in request
    assert open_provider(load_judge("quality-mistral"), {}, tmp_path).has_jobs

"""What one answer says: a verdict, or which failure; never a guess."""

from __future__ import annotations

import json

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.provider_jobs.replies import ReadReply, read_reply, without_reply
from cj_pipeline.providers.base import JobOutcome, Reply
from tests.support.jobs import provider_job

JUDGE = load_judge("quality")
VERDICT = json.dumps({"winner": "B", "confidence": 4, "justification": "Clearer."})


def _cut(text: str | None) -> ReadReply:
    reply = Reply("c", RequestOutcome.TRUNCATED, text=text, error_code="length")
    return read_reply(lambda _: reply, JUDGE, "{}")


@pytest.mark.parametrize("padding", ["\n", " \n\n\t " * 100])
def test_a_whole_verdict_padded_to_the_limit_counts(padding: str) -> None:
    """It was paid for, and nothing of it is missing."""
    read = _cut(VERDICT + padding)

    assert read.outcome is RequestOutcome.SUCCEEDED
    assert read.verdict is not None
    assert read.verdict.winner == "B"


@pytest.mark.parametrize(
    "text", [VERDICT, VERDICT[:-1] + "\n", VERDICT + "\n{", '{"winner": "A"', VERDICT[:14] + " "]
)
def test_a_verdict_that_was_cut_is_none(text: str) -> None:
    """What would have come next is not known."""
    read = _cut(text)

    assert (read.outcome, read.verdict, read.may_retry) == (RequestOutcome.TRUNCATED, None, True)


@pytest.mark.parametrize("text", [None, "", "\n", "<think>Both are long. A", "<thinking>"])
def test_an_answer_whose_reasoning_used_up_the_limit_is_not_bought_again(text: str | None) -> None:
    """At the same limit it would end in the same place; a person is told what to raise."""
    read = _cut(text)

    assert (read.outcome, read.may_retry) == (RequestOutcome.TRUNCATED, False)
    assert "max_output_tokens" in str(read.error_message)


@pytest.mark.parametrize(
    ("code", "n_completed", "may_retry"),
    [
        ("invalid_json_line", 0, False),
        ("invalid_json_line", None, False),
        ("server_error", 1, True),
        ("out_of_credit", 1, True),
        ("out_of_credit", None, True),
        ("token_limit_exceeded", 0, True),
    ],
)
def test_what_a_failed_job_did_not_reach_is_asked_again_where_that_may_help(
    code: str, n_completed: int | None, may_retry: bool
) -> None:
    """A job that began was asked in a way that its provider understands."""
    job = provider_job(outcome=JobOutcome.FAILED, error_code=code, n_completed=n_completed)

    assert without_reply(job).may_retry is may_retry

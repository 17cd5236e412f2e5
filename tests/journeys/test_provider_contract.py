"""What every adapter owes whoever submits, polls and collects: adapter by behaviour.

Each official SDK talks to the emulator inside this process; nothing is patched. Faults are the
emulator's own, so what is tested is a whole conversation.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.batch.comparisons import RequestOutcome, custom_id
from cj_pipeline.errors import (
    InvalidOutputError,
    ProviderRefusedError,
    ProviderUnavailableError,
    TransientError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.pricing import cost_usd
from cj_pipeline.judging.prompts import Prompt, parse_verdict, render_prompt
from cj_pipeline.providers.base import JobOutcome, JobStatus, Provider, Reply
from cj_pipeline.providers.registry import open_provider
from cj_pipeline.providers.transport import CLOCK_SKEW

_OWN_SHAPES = ("quality-mistral", "quality-xai", "quality-openrouter")
_ADAPTERS = (
    *("quality", "quality-responses", "quality-messages", "quality-gemini"),
    *_OWN_SHAPES,
)
_KEY = "0123456789abcdef" * 4

every_adapter = pytest.mark.parametrize("name", _ADAPTERS)

adapters_with_states = pytest.mark.parametrize("name", [n for n in _ADAPTERS if n != "quality-xai"])
"""xAI's batches count, and have no word for their state."""

adapters_that_cancel = pytest.mark.parametrize(
    "name", [n for n in _ADAPTERS if n != "quality-openrouter"]
)
"""OpenRouter has no way to stop a batch."""

DIFFERENCES = {
    "test_a_job_whose_reply_was_lost_is_found_again_and_only_it": {
        "quality-messages": "once it has ended",
        "quality-openrouter": "once it has ended",
    },
    "test_an_expired_job_keeps_what_it_finished_unless_the_provider_drops_it": {
        "quality-gemini": "gives nothing back",
        **dict.fromkeys(_OWN_SHAPES, "leaves out what it did not come to"),
    },
    "test_each_kind_of_failed_row_has_its_outcome": {
        "quality-messages": "✓, its filter is a refusal",
        "quality-gemini": "✓, a refusal is plain words",
    },
}
"""Where an adapter cannot do as the others: what is told of it in the documentation."""

ONLY = {"test_a_refusal_in_plain_words_is_no_verdict": ("quality-gemini",)}
"""Behaviours that only some adapters can show."""


class Conversation:
    """One adapter, one emulator with a state of its own, and a shard to submit."""

    def __init__(self, name: str, home: Path, **settings: Any) -> None:
        self.judge = load_judge(name)
        self.home = home
        self.began = datetime.now(UTC)
        self.provider = self.opened(**settings)

    def opened(self, **settings: Any) -> Provider:
        """Open the provider anew, as another process would; settings are the emulator's."""
        environment = {"CJ_EMULATOR_SETTINGS": json.dumps(settings)} if settings else {}
        return open_provider(self.judge, environment, self.home)

    def shard(self, n_requests: int = 4, key: str = _KEY) -> Path:
        """Write a shard of so many comparisons."""
        path = self.home / f"{key}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number in range(n_requests):
                request = self.provider.build_request(
                    self.prompt(number), self.judge, self.custom_id(number, key)
                )
                file.write(json.dumps(request, ensure_ascii=False) + "\n")
        return path

    def prompt(self, number: int) -> Prompt:
        """Return the prompt of one comparison."""
        return render_prompt(
            self.judge.template,
            instructions="Describe a walk.",
            rubric="",
            text_a=f"We walked to the lake, å ä ö. {number}",
            text_b=f"It rained all day and we stayed inside. {number}",
            nonce=f"{number:016x}",
        )

    def custom_id(self, number: int, key: str = _KEY) -> str:
        """Return the id of one comparison's first attempt."""
        return custom_id(key, f"0123456789-{number:07d}", 1)

    def submit(self, n_requests: int = 4, key: str = _KEY) -> str:
        """Upload and create, and return the job's id."""
        path = self.shard(n_requests, key)
        return self.provider.create(path, self.provider.upload(path, key), key)

    def ended(self, job_id: str) -> JobStatus:
        """Poll until the job has ended; the emulator's jobs here take no time."""
        for _ in range(5):
            status = self.provider.poll(job_id)
            if status.state == "ended":
                return status
        msg = f"{job_id} does not end: {status}"
        raise AssertionError(msg)

    def replies(self, job_id: str) -> list[Reply]:
        """Collect and parse."""
        return [self.provider.parse_reply(line.text) for line in self.provider.collect(job_id)]


def _ids(replies: Sequence[Reply]) -> list[str | None]:
    return sorted(reply.custom_id or "" for reply in replies)


@every_adapter
def test_a_job_brings_every_request_a_verdict_and_its_usage(name: str, tmp_path: Path) -> None:
    """The main path: upload, create, poll, collect, parse."""
    talk = Conversation(name, tmp_path)

    job_id = talk.submit(6)
    status = talk.ended(job_id)
    replies = talk.replies(job_id)

    assert status.outcome is JobOutcome.COMPLETED
    assert _ids(replies) == [talk.custom_id(number) for number in range(6)]
    for reply in replies:
        assert reply.outcome is RequestOutcome.SUCCEEDED
        assert parse_verdict(reply.text or "", allow_ties=False).winner in {"A", "B"}
        assert reply.usage is not None
        assert reply.usage.prompt > 50
        assert reply.usage.completion > 0


@every_adapter
def test_what_a_row_costs_is_covered_by_its_reservation(name: str, tmp_path: Path) -> None:
    """Or the spend cap would not hold."""
    talk = Conversation(name, tmp_path)

    replies = talk.replies(talk.submit(2))

    reserved = worst_case_usd(talk.judge.price, talk.prompt(0), talk.judge, batched=True)
    for reply in replies:
        assert reply.usage is not None
        assert 0 < cost_usd(talk.judge.price, reply.usage, batched=True) <= reserved


@every_adapter
def test_a_single_call_reads_like_a_row_of_a_job(name: str, tmp_path: Path) -> None:
    """One parser for both, so one way of counting money and outcomes."""
    talk = Conversation(name, tmp_path)
    request = talk.provider.build_request(talk.prompt(0), talk.judge, talk.custom_id(0))

    reply = talk.provider.parse_reply(talk.provider.single(request, timeout_s=10))

    assert (reply.custom_id, reply.outcome) == (talk.custom_id(0), RequestOutcome.SUCCEEDED)
    assert parse_verdict(reply.text or "", allow_ties=False).winner in {"A", "B"}


@every_adapter
def test_a_job_whose_reply_was_lost_is_found_again_and_only_it(name: str, tmp_path: Path) -> None:
    """The server committed, we never heard of it: the job must be adopted, not made again."""
    lost = {"kind": "lost_reply", "on": "*batches.create", "at": [1]}
    talk = Conversation(name, tmp_path, faults=[lost])

    with pytest.raises(UncertainOutcomeError):
        talk.submit(3)
    found = talk.provider.find(_KEY, talk.began, 3)

    assert [job.is_certain for job in found] == [True]
    assert len(talk.replies(found[0].job_id)) == 3


@every_adapter
def test_a_job_that_was_never_made_is_not_found(name: str, tmp_path: Path) -> None:
    """The request was lost on its way: creating it now is right."""
    lost = {"kind": "lost_request", "on": "*batches.create", "at": [1]}
    talk = Conversation(name, tmp_path, faults=[lost])

    with pytest.raises(UncertainOutcomeError):
        talk.submit(3)

    assert talk.provider.find(_KEY, talk.began, 3) == ()
    assert len(talk.replies(talk.submit(3))) == 3


@every_adapter
def test_another_submissions_job_is_not_taken_for_ours(name: str, tmp_path: Path) -> None:
    """Two batches of the same size may go out in the same minute."""
    talk = Conversation(name, tmp_path)
    talk.ended(talk.submit(3, key="f" * 64))

    assert talk.provider.find(_KEY, talk.began, 3) == ()


@every_adapter
def test_both_jobs_of_a_submission_made_twice_are_found(name: str, tmp_path: Path) -> None:
    """So that one can be kept and the other cancelled and counted."""
    talk = Conversation(name, tmp_path)
    jobs = {talk.submit(3), talk.submit(3)}
    for job_id in jobs:
        talk.ended(job_id)

    found = talk.provider.find(_KEY, talk.began, 3)

    assert {job.job_id for job in found} == jobs


@every_adapter
def test_jobs_from_before_the_intent_are_not_searched(name: str, tmp_path: Path) -> None:
    """What was made earlier than any clock could be wrong by cannot be ours."""
    talk = Conversation(name, tmp_path)
    talk.submit(3)

    assert talk.provider.find(_KEY, talk.began + CLOCK_SKEW + timedelta(hours=1), 3) == ()


@every_adapter
def test_a_refusal_to_create_leaves_no_doubt(name: str, tmp_path: Path) -> None:
    """A client error is final: the same request will not be taken later either."""
    fault = {"kind": "status", "on": "*batches.create", "status": 400}
    talk = Conversation(name, tmp_path, faults=[fault])

    with pytest.raises(ProviderRefusedError):
        talk.submit()


@every_adapter
def test_being_asked_to_wait_says_for_how_long(name: str, tmp_path: Path) -> None:
    """Nobody sleeps here; whoever decides is told."""
    fault = {"kind": "status", "status": 429, "retry_after": "17", "on": "*batches.create"}
    talk = Conversation(name, tmp_path, faults=[fault])

    with pytest.raises(ProviderUnavailableError) as caught:
        talk.submit()

    assert caught.value.retry_after_s == 17


@every_adapter
@pytest.mark.parametrize("kind", ["status", "malformed", "lost_reply", "truncated"])
def test_a_poll_that_fails_may_simply_be_repeated(name: str, kind: str, tmp_path: Path) -> None:
    """It creates nothing, so it is never in doubt."""
    fault = {"kind": kind, "on": "*batches.retrieve", "at": [1]}
    talk = Conversation(name, tmp_path, faults=[fault])
    job_id = talk.submit()

    with pytest.raises(TransientError) as caught:
        talk.provider.poll(job_id)

    assert not isinstance(caught.value, UncertainOutcomeError)
    assert talk.provider.poll(job_id).job_id == job_id


@adapters_with_states
@pytest.mark.filterwarnings("ignore:scheduling is not a valid JobState")
def test_a_status_nobody_knows_counts_as_running(name: str, tmp_path: Path) -> None:
    """Taking it for an end would lose paid rows; it is shown as a warning."""
    faults = [{"kind": "stuck"}, {"kind": "status_word", "word": "scheduling"}]
    talk = Conversation(name, tmp_path, faults=faults)

    status = talk.provider.poll(talk.submit())

    assert status.state == "running"
    assert status.warning is not None


@every_adapter
def test_an_expired_job_keeps_what_it_finished_unless_the_provider_drops_it(
    name: str, tmp_path: Path
) -> None:
    """Finished rows were paid for. Gemini alone gives nothing back."""
    talk = Conversation(name, tmp_path, faults=[{"kind": "expires", "share": 0.5}])

    job_id = talk.submit(20)
    status = talk.ended(job_id)
    outcomes = {reply.outcome for reply in talk.replies(job_id)}

    kept = {RequestOutcome.SUCCEEDED, RequestOutcome.EXPIRED}
    if name in _OWN_SHAPES:
        kept = {RequestOutcome.SUCCEEDED}
    elif name == "quality-gemini":
        kept = set()
    assert status.outcome is JobOutcome.EXPIRED
    assert outcomes == kept


@adapters_that_cancel
def test_a_cancelled_job_ends_and_says_so(name: str, tmp_path: Path) -> None:
    """What it had not begun is not paid for."""
    talk = Conversation(name, tmp_path, latency_s=3600)
    job_id = talk.submit(4)

    talk.provider.cancel(job_id)

    assert talk.ended(job_id).outcome is JobOutcome.CANCELLED
    outcomes = {reply.outcome for reply in talk.replies(job_id)}
    assert outcomes <= {RequestOutcome.SUCCEEDED, RequestOutcome.CANCELLED}


@every_adapter
def test_cancelling_what_has_ended_changes_nothing(name: str, tmp_path: Path) -> None:
    """It is asked for at any time, also a moment too late."""
    talk = Conversation(name, tmp_path)
    job_id = talk.submit(2)
    talk.ended(job_id)

    assert talk.provider.cancel(job_id).outcome is JobOutcome.COMPLETED
    assert len(talk.replies(job_id)) == 2


@every_adapter
def test_a_job_nobody_made_is_refused(name: str, tmp_path: Path) -> None:
    """Asking again would not make it appear."""
    talk = Conversation(name, tmp_path)

    with pytest.raises(ProviderRefusedError):
        talk.provider.poll("batches/none" if name == "quality-gemini" else "batch_none")


@every_adapter
def test_discarding_twice_is_once(name: str, tmp_path: Path) -> None:
    """Tidying up is repeated after a kill."""
    talk = Conversation(name, tmp_path)
    path = talk.shard(2)
    file_id = talk.provider.upload(path, _KEY)
    job_id = talk.provider.create(path, file_id, _KEY)
    status = talk.ended(job_id)
    files = [f for f in (file_id, status.output_file_id, status.error_file_id) if f]

    talk.provider.discard(job_id, files)
    talk.provider.discard(job_id, files)

    assert [f.file_id for f in talk.provider.list_files(talk.began) if f.file_id in files] == []


@every_adapter
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("refusal", RequestOutcome.REFUSAL),
        ("truncated_answer", RequestOutcome.TRUNCATED),
        ("content_filter", RequestOutcome.CONTENT_FILTER),
        ("status_400", RequestOutcome.PROVIDER_ERROR),
        ("status_500", RequestOutcome.PROVIDER_ERROR),
    ],
)
def test_each_kind_of_failed_row_has_its_outcome(
    name: str, kind: str, outcome: RequestOutcome, tmp_path: Path
) -> None:
    """And its neighbours are not lost with it."""
    talk = Conversation(name, tmp_path, faults=[{"kind": kind, "at": [2]}])

    outcomes = {reply.custom_id: reply.outcome for reply in talk.replies(talk.submit(4))}

    if (name, kind) == ("quality-messages", "content_filter"):
        outcome = RequestOutcome.REFUSAL  # Anthropic's filter has no other word.
    if (name, kind) == ("quality-gemini", "refusal"):
        outcome = (
            RequestOutcome.SUCCEEDED
        )  # A text came; that it holds no verdict is found by `judging`.
    assert outcomes[talk.custom_id(1)] is outcome
    assert [outcomes[talk.custom_id(n)] for n in (0, 2, 3)] == [RequestOutcome.SUCCEEDED] * 3


def test_a_refusal_in_plain_words_is_no_verdict(tmp_path: Path) -> None:
    """Gemini refuses so, and the schema does not keep it from it."""
    talk = Conversation("quality-gemini", tmp_path, faults=[{"kind": "refusal"}])

    reply = talk.replies(talk.submit(1))[0]

    with pytest.raises(InvalidOutputError):
        parse_verdict(reply.text or "", allow_ties=False)


@every_adapter
def test_rows_missing_twice_foreign_or_garbled_are_passed_on_as_they_came(
    name: str, tmp_path: Path
) -> None:
    """Whoever collects counts them; nothing here raises or makes up an id."""
    faults = [
        {"kind": "missing", "at": [1]},
        {"kind": "duplicated", "at": [2]},
        {"kind": "foreign", "at": [3]},
        {"kind": "garbled", "at": [4]},
    ]
    talk = Conversation(name, tmp_path, faults=faults)

    ids = [reply.custom_id for reply in talk.replies(talk.submit(6))]

    assert talk.custom_id(0) not in ids
    assert ids.count(talk.custom_id(1)) == 2
    assert {talk.custom_id(4), talk.custom_id(5)} <= set(ids)


@every_adapter
def test_results_cut_off_on_their_way_are_not_half_collected(name: str, tmp_path: Path) -> None:
    """Nothing is yielded before everything is here; collecting again gets it all."""
    on = {
        "quality-messages": "*batches.results",
        "quality-gemini": "*batches.retrieve",
        "quality-xai": "*batches.results",
        "quality-openrouter": "*batches.retrieve",
    }
    fault = {"kind": "truncated", "on": on.get(name, "*files.content"), "at": [1], "share": 0.4}
    talk = Conversation(name, tmp_path, faults=[fault])
    job_id = talk.submit(5)

    with pytest.raises(ProviderUnavailableError):
        talk.replies(job_id)

    assert len(talk.replies(job_id)) == 5


@every_adapter
def test_another_process_finds_the_job_by_its_id_alone(name: str, tmp_path: Path) -> None:
    """Whoever polls and collects is seldom whoever submitted."""
    talk = Conversation(name, tmp_path)
    job_id = talk.submit(3)

    talk.provider = talk.opened()

    assert len(talk.replies(job_id)) == 3

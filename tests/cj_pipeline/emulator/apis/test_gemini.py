"""Gemini's endpoints behave as PROVIDERS describes them, to the official SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import errors, types

from cj_pipeline.emulator import in_process_client
from cj_pipeline.emulator.config import Fault, Limits
from tests.support.emulator_calls import Clock, emulator_config, gemini_client, prompt


def contents() -> list[dict[str, Any]]:
    """Return what a request shows."""
    return [{"role": "user", "parts": [{"text": prompt()}]}]


def inline(n: int) -> list[Any]:
    """Return inline requests with their keys."""
    return [{"contents": contents(), "metadata": {"key": f"r{i}"}} for i in range(n)]


def named(name: str) -> types.CreateBatchJobConfig:
    """Return a batch's configuration."""
    return types.CreateBatchJobConfig(display_name=name)


def write_lines(folder: Path, n: int) -> Path:
    """Write an input file and return it."""
    path = folder / "input.jsonl"
    rows = [{"key": f"r{i}", "request": {"contents": contents()}} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def upload(client: Any, path: Path) -> Any:
    """Upload an input file."""
    config = types.UploadFileConfig(display_name="sub-1", mime_type="application/jsonl")
    return client.files.upload(file=str(path), config=config)


def test_a_batch_goes_from_pending_over_running_to_succeeded() -> None:
    """Status is a function of the clock."""
    clock = Clock()
    client = gemini_client(emulator_config(latency_s=100), clock)

    made = client.batches.create(model="quality", src=inline(3), config=named("sub-1"))
    seen = [made.state]
    for second in (50, 101):
        clock.now = 1_800_000_000.0 + second
        seen.append(client.batches.get(name=made.name or "").state)

    assert [s.name for s in seen if s] == [
        "JOB_STATE_PENDING",
        "JOB_STATE_RUNNING",
        "JOB_STATE_SUCCEEDED",
    ]


def test_inline_responses_bear_their_requests_metadata() -> None:
    """They come in any order, so the key is all there is."""
    client = gemini_client(emulator_config())

    made = client.batches.create(model="quality", src=inline(20), config=named("sub-1"))
    found = client.batches.get(name=made.name or "")
    assert found.dest is not None
    assert found.dest.inlined_responses is not None
    keys = [r.metadata["key"] for r in found.dest.inlined_responses if r.metadata]

    assert found.display_name == "sub-1"
    assert sorted(keys) == sorted(f"r{i}" for i in range(20))
    assert keys != [f"r{i}" for i in range(20)]
    for row in found.dest.inlined_responses:
        assert row.response is not None
        assert json.loads(row.response.text or "")["winner"] in {"A", "B", "tie"}


def test_a_batch_can_be_made_of_a_file(tmp_path: Path) -> None:
    """Its results are a file too, with the keys of the requests."""
    client = gemini_client(emulator_config())
    file = upload(client, write_lines(tmp_path, 5))

    made = client.batches.create(model="quality", src=file.name, config=named("sub-1"))
    found = client.batches.get(name=made.name or "")
    assert found.dest is not None
    rows = client.files.download(file=found.dest.file_name or "").decode().splitlines()

    assert file.display_name == "sub-1"
    assert file.size_bytes == (tmp_path / "input.jsonl").stat().st_size
    assert sorted(json.loads(row)["key"] for row in rows) == [f"r{i}" for i in range(5)]


def test_a_result_files_name_is_too_long_to_delete_it(tmp_path: Path) -> None:
    """So it stays, and eats the quota."""
    client = gemini_client(emulator_config())
    file = upload(client, write_lines(tmp_path, 1))
    made = client.batches.create(model="quality", src=file.name, config=named("s"))
    found = client.batches.get(name=made.name or "")
    assert found.dest is not None

    client.files.delete(name=file.name)
    with pytest.raises(errors.ClientError) as caught:
        client.files.delete(name=found.dest.file_name or "")

    assert caught.value.code == 400
    assert not list(client.files.list())


def test_a_file_must_be_active_before_a_batch_is_made_of_it(tmp_path: Path) -> None:
    """Creating too early is refused."""
    clock = Clock()
    client = gemini_client(emulator_config(upload_lag_s=5), clock)
    file = upload(client, write_lines(tmp_path, 1))

    with pytest.raises(errors.ClientError, match="ACTIVE"):
        client.batches.create(model="quality", src=file.name)
    clock.now += 6

    assert client.files.get(name=file.name).state == types.FileState.ACTIVE
    assert client.batches.create(model="quality", src=file.name).name


def test_an_expired_batch_has_no_results_at_all() -> None:
    """After 48 hours; unlike OpenAI's and Anthropic's."""
    clock = Clock()
    config = emulator_config(latency_s=96 * 3600)
    client = gemini_client(config, clock)
    made = client.batches.create(model="quality", src=inline(20))

    clock.now += 47 * 3600
    running = client.batches.get(name=made.name or "")
    clock.now += 3600
    expired = client.batches.get(name=made.name or "")
    audit = in_process_client(config, clock).get("http://e/emulator/audit").json()

    assert running.state == types.JobState.JOB_STATE_RUNNING
    assert expired.state == types.JobState.JOB_STATE_EXPIRED
    assert expired.dest is None
    assert audit["totals"]["requests_paid"] == 0


def test_a_cancelled_batch_says_so() -> None:
    """A cancellation is answered with nothing; the state shows it."""
    clock = Clock()
    client = gemini_client(emulator_config(latency_s=100), clock)
    made = client.batches.create(model="quality", src=inline(20))
    clock.now += 50

    client.batches.cancel(name=made.name or "")

    assert client.batches.get(name=made.name or "").state == types.JobState.JOB_STATE_CANCELLED


def test_the_sdk_hides_a_failed_batchs_error_and_counts() -> None:
    """They are in the JSON; only the SDK's mapper drops them."""
    config = emulator_config(faults=[Fault(kind="fails", word="internal")])
    client = gemini_client(config)

    made = client.batches.create(model="quality", src=inline(2))
    seen = client.batches.get(name=made.name or "")
    raw = in_process_client(config).get(
        f"http://e/v1beta/{made.name}", headers={"x-goog-api-key": "k"}
    )

    assert seen.state == types.JobState.JOB_STATE_FAILED
    assert (seen.error, seen.completion_stats) == (None, None)
    assert raw.json()["error"]["code"] == 13
    assert raw.json()["metadata"]["batchStats"]["requestCount"] == "2"


def test_only_so_many_batches_may_be_open() -> None:
    """429 beyond them."""
    client = gemini_client(emulator_config(latency_s=100, limits=Limits(gemini_open_jobs=1)))
    client.batches.create(model="quality", src=inline(1))

    with pytest.raises(errors.ClientError) as caught:
        client.batches.create(model="quality", src=inline(1))

    assert caught.value.code == 429


def test_inline_requests_have_a_limit_in_bytes() -> None:
    """20 MB in the documentation."""
    client = gemini_client(emulator_config(limits=Limits(gemini_inline_bytes=100)))

    with pytest.raises(errors.ClientError, match="bytes"):
        client.batches.create(model="quality", src=inline(1))


def test_creating_twice_makes_two() -> None:
    """Creation is not idempotent, and display names are not unique."""
    client = gemini_client(emulator_config())

    for _ in range(2):
        client.batches.create(model="quality", src=inline(1), config=named("same"))
    names = [b.display_name for b in client.batches.list(config={"page_size": 1})]

    assert names == ["same", "same"]


def test_a_deleted_batch_is_gone() -> None:
    """From the list and from sight."""
    client = gemini_client(emulator_config())
    made = client.batches.create(model="quality", src=inline(1))

    client.batches.delete(name=made.name or "")

    assert not list(client.batches.list())
    with pytest.raises(errors.ClientError):
        client.batches.get(name=made.name or "")


def test_a_row_that_fails_bears_an_error_among_answers() -> None:
    """The batch succeeds all the same."""
    client = gemini_client(emulator_config())
    requests = [
        *inline(1),
        {"contents": [{"parts": [{"text": "no essays"}]}], "metadata": {"key": "x"}},
    ]

    made = client.batches.create(model="quality", src=requests)
    found = client.batches.get(name=made.name or "")
    assert found.dest is not None
    rows = {r.metadata["key"]: r for r in found.dest.inlined_responses or [] if r.metadata}

    assert found.state == types.JobState.JOB_STATE_SUCCEEDED
    assert rows["x"].error is not None
    assert rows["x"].error.code == 3
    assert rows["r0"].response is not None


def test_a_single_request_is_answered_and_counts_thoughts_apart() -> None:
    """Candidates' tokens leave out thoughts."""
    thinking = emulator_config(judges={"quality": {"reasoning_tokens": 50}})
    client = gemini_client(thinking)

    answer = client.models.generate_content(model="quality", contents=prompt())

    assert json.loads(answer.text or "")["winner"] in {"A", "B", "tie"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.thoughts_token_count == 50
    assert (answer.usage_metadata.candidates_token_count or 0) < 50

"""Single calls as the metrics count them, from real waves against the emulator."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import TransientError
from cj_pipeline.live.retry import RetryRules
from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.metrics.readings import read_metrics
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import TEST_RUN, ManualClock, write_batch

QUICK = RetryRules(first_wait_s=0.001, longest_wait_s=0.002)
BY_NAME = {metric.name: metric for metric in METRICS}
QUALITY = ("emulator", "quality")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime over a store in memory."""
    home = tmp_path / "home"
    home.mkdir()
    return Runtime(FileStore.in_memory(), home, {}, TEST_RUN, clock=clock, retry_rules=QUICK)


def planned(runtime: Runtime, tmp_path: Path, mode: str, **settings: Any) -> str:
    """Take a batch in that judges by single calls, and plan its first wave."""
    given = {"judges": ["quality"], "llm_batching_mode": mode, "max_attempts": 1}
    folder = write_batch(tmp_path / "live", n_students=6, settings=given | settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    return batch_id


def counted(runtime: Runtime, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's series; of a histogram how many were measured."""
    with runtime.store.read() as db:
        (reading,) = read_metrics(db, now=runtime.clock(), metrics=[BY_NAME[name]])
    return {s.labels: s.buckets[-1] if s.buckets else s.value for s in reading.series}


def test_serial_bundles_and_their_calls(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bundles of two, three and three calls, each answered at its first try."""
    monkeypatch.setattr(import_module("cj_pipeline.steps.submit_wave"), "BUNDLE", 3)
    batch_id = planned(runtime, tmp_path, "serial_bundle", wave_size=8)

    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    assert counted(runtime, "llm_provider_serial_bundle_calls_total") == {QUALITY: 3}
    assert counted(runtime, "llm_provider_serial_bundle_items_per_call") == {QUALITY: 3}
    assert counted(runtime, "cj_llm_requests_total")["serial_bundle",] == 8
    waits = counted(runtime, "llm_provider_queue_wait_time_seconds")
    assert waits == {("serial_bundle", "success"): 8}
    assert counted(runtime, "llm_provider_live_calls_total") == {(*QUALITY, "answered"): 8}
    assert counted(runtime, "llm_provider_live_tries_total") == {QUALITY: 8}
    assert counted(runtime, "llm_provider_live_latency_seconds") == {QUALITY: 8}
    assert counted(runtime, "llm_provider_batch_api_jobs_total") == {}


def test_calls_that_wait_and_then_are_too_late(
    runtime: Runtime, tmp_path: Path, clock: ManualClock
) -> None:
    """Counted as waiting first, then as expired by the profile's time; never as having left."""
    config = EmulatorConfig.from_environment({}, runtime.home)
    fault = {"kind": "status", "on": "*chat.create", "status": 429, "retry_after": "3600"}
    change_settings(config, faults=[fault])
    late = {"result_ttl_seconds": 60, "wait_timeout_seconds": 1, "timeout_seconds": 1}
    batch_id = planned(runtime, tmp_path, "per_request", wave_size=3, profile_set=late)
    with pytest.raises(TransientError):
        submit_wave(runtime, batch_id)
    waiting = counted(runtime, "llm_provider_queue_waiting")
    clock.sleep(3600)
    oldest = counted(runtime, "llm_provider_queue_oldest_wait_seconds")

    submit_wave(runtime, batch_id)
    collect_wave(runtime, batch_id)

    assert waiting == {QUALITY: 3}
    assert oldest == {(): 3600}
    assert counted(runtime, "llm_provider_queue_waiting") == {}
    expired = counted(runtime, "llm_provider_queue_expiry_total")
    assert expired == {("emulator", "per_request", "result_ttl"): 3}
    waits = counted(runtime, "llm_provider_queue_wait_time_seconds")
    assert waits == {("per_request", "expired"): 3}
    assert counted(runtime, "cj_callbacks_total")["expired",] == 3


def test_a_breaker_that_is_open_is_seen(runtime: Runtime, clock: ManualClock) -> None:
    """Half-open is not closed: the provider is only tried."""
    model = {"account": "a", "provider": "openai", "n_failures": 5, "n_trips": 1}
    states = {"one": "closed", "two": "open", "three": "half-open"}
    with runtime.store.write() as db:
        db.insert(
            "circuit_breakers",
            [
                model | {"lane": name, "model": name, "state": state, "changed_at": clock()}
                for name, state in states.items()
            ],
        )

    found = counted(runtime, "llm_provider_circuit_breaker_open")

    assert found == {("openai", "one"): 0, ("openai", "two"): 1, ("openai", "three"): 1}

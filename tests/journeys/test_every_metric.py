"""Every metric of the catalogue is produced by a run, not only by rows that a test wrote.

One walk through what happens to an installation, with all metrics read after every step. A metric
that nothing here produces is a promise on a dashboard that stays empty: it goes, or the walk grows.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.automation.sensors import inbox_sensor
from cj_pipeline.definitions import defs
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import CJError
from cj_pipeline.live.retry import RetryRules
from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.metrics.readings import MOST_SERIES, Reading, read_metrics
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.trials.runs import conclude_trial, open_trial
from resources.runtime_resource import RuntimeResource
from tests.cj_pipeline.service.test_webhooks import SECRET, body_of, deliver, signed
from tests.support import ROOT
from tests.support.batches import open_engine, write_batch
from tests.support.served_runtime import asking

QUICK = RetryRules(first_wait_s=0.001, longest_wait_s=0.002)
ELSEWHERE = {
    "cj_store_held": "tests/journeys/test_held_store.py",
    "cj_trial_drifted_runs_total": "tests/cj_pipeline/trials/test_runs.py",
}
"""Where a run that takes longer to come about looks at its metric itself."""

CREATE = {"on": "*chat.create"}


class Walk:
    """What was seen on the way: metrics with something counted, and every histogram's sums."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seen: set[str] = set()
        self.fell: list[str] = []
        self._before: dict[tuple[str, tuple[str, ...]], tuple[float, ...]] = {}

    def look(self, *batches: str) -> None:
        """Read all metrics, and those of some batches."""
        with self.runtime.store.read() as db:
            now = datetime.now(UTC)
            for reading in read_metrics(db, now=now):
                self._note(reading)
            for batch_id in batches:
                for reading in read_metrics(db, now=now, batch_id=batch_id):
                    self.seen |= {reading.metric.name} if _counts(reading) else set()

    def _note(self, reading: Reading) -> None:
        metric = reading.metric
        assert len(reading.series) <= MOST_SERIES + 1
        self.seen |= {metric.name} if _counts(reading) else set()
        if metric.kind == "gauge":
            return
        for series in reading.series:
            key, now = (metric.name, series.labels), (*series.buckets, series.value)
            before = self._before.get(key, now)
            self.fell += [
                f"{key}: {before} then {now}"
                for one, other in zip(before, now, strict=True)
                if other < one
            ]
            self._before[key] = now

    def to_the_end(self, batch_id: str, *, publish: bool = False) -> None:
        """Take a batch to its end, with a look after every step; if told so, to its report."""
        self.look(batch_id)
        while publish or not self._has_ended(batch_id):
            if take_next_step(self.runtime, batch_id).step is NextStep.NOTHING:
                break
            self.look(batch_id)

    def _has_ended(self, batch_id: str) -> bool:
        with self.runtime.store.read() as db:
            return load_batch(db, batch_id).has_ended


def _counts(reading: Reading) -> bool:
    return any(series.value or series.buckets for series in reading.series)


def set_faults(runtime: Runtime, *faults: dict[str, Any]) -> None:
    """Have the provider do otherwise from now on."""
    change_settings(EmulatorConfig.from_environment({}, runtime.home), faults=list(faults))


def sent(walk: Walk, batch_id: str) -> None:
    """Plan and send a wave that its provider may not take, and collect what there is."""
    plan_wave(walk.runtime, batch_id)
    with suppress(CJError):
        submit_wave(walk.runtime, batch_id)
    walk.look(batch_id)
    with suppress(CJError):
        collect_wave(walk.runtime, batch_id)
    walk.look(batch_id)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """An installation's life, in half a minute."""
    place = tmp_path_factory.mktemp("life")
    given = {"OPENAI_WEBHOOK_SECRET": SECRET, "CJ_HOME": str(place / "home")}
    runtime = open_engine(place / "home", given, retry_rules=QUICK)
    walk = Walk(runtime)
    usual = {"judges": ["quality"], "score_stability_threshold": None, "spend_cap_usd": 1.0}
    graded = usual | {"scale": "eng5_np_national_9_step", "release": "needs_sign_off"}

    def folder(name: str, n: int, **settings: Any) -> Path:
        return write_batch(place / name, n_students=n, settings=usual | settings)

    with_anchors = write_batch(
        place / "graded",
        n_students=6,
        n_anchors=5,
        settings=graded
        | {"max_pairwise_comparisons": 44, "wave_size": 22}
        | {"emulator_qualities": {f"anchor-{n:03d}": 2.0 * n - 6 for n in range(1, 6)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CJ_HOME", str(runtime.home))
        _arrivals(walk, folder("arriving", 3))
    batch_id = ingest(runtime, with_anchors).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    walk.look(batch_id)
    with asking(runtime) as client:
        deliver(client, body_of(runtime), signed(body_of(runtime)))
    walk.to_the_end(batch_id, publish=True)
    bundled = folder("bundled", 3, llm_batching_mode="serial_bundle", max_pairwise_comparisons=3)
    walk.to_the_end(ingest(runtime, bundled).batch_id)
    _trial(walk)
    _troubles(walk, folder)
    return walk


def _arrivals(walk: Walk, folder: Path) -> None:
    """Dagster's sensor looks into the inbox."""
    walk.runtime.inbox.mkdir(parents=True, exist_ok=True)
    folder.rename(walk.runtime.inbox / folder.name)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance, resources={"engine": RuntimeResource()}, definitions=defs
        ) as context,
    ):
        inbox_sensor(context)
    walk.look()


def _trial(walk: Walk) -> None:
    open_trial(walk.runtime, "mini", batch_id="trial-mini")
    walk.to_the_end("trial-mini")
    conclude_trial(walk.runtime, "trial-mini")
    walk.look()


def _troubles(walk: Walk, folder: Any) -> None:
    """Calls that are too late, a provider that fails on and on, a job nobody knows of."""
    live = {"llm_batching_mode": "per_request", "max_attempts": 1, "max_pairwise_comparisons": 15}
    runtime = walk.runtime
    set_faults(runtime, CREATE | {"kind": "status", "status": 500})
    batch_id = ingest(runtime, folder("broken", 6, **live)).batch_id
    sent(walk, batch_id)
    set_faults(runtime, CREATE | {"kind": "status", "status": 429, "retry_after": "3600"})
    in_time = {"wait_timeout_seconds": 1, "timeout_seconds": 1}
    for name, ttl in (("waiting", 3600), ("late", 0.001)):
        limits = in_time | {"result_ttl_seconds": ttl}
        sent(walk, ingest(runtime, folder(name, 6, **live, profile_set=limits)).batch_id)
    set_faults(runtime, {"kind": "lost_reply", "on": "*batches.create"})
    batch_id = ingest(runtime, folder("lost", 3, max_pairwise_comparisons=3)).batch_id
    sent(walk, batch_id)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_it_is_produced_by_what_really_happens(walk: Walk, metric: Any) -> None:
    """Otherwise nobody would notice that it has stopped to be counted."""
    if metric.name in ELSEWHERE:
        assert metric.name in (ROOT / ELSEWHERE[metric.name]).read_text("utf-8")
        return
    assert metric.name in walk.seen


def test_counters_and_histograms_never_fall(walk: Walk) -> None:
    """Whatever happens to a batch: Prometheus would take a fall for a restart."""
    assert walk.fell == []

"""Metrics are counted from the store's rows, and read back with Prometheus's own parser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from cj_pipeline.ceilings import Ceilings
from cj_pipeline.cli import app
from cj_pipeline.errors import StoreBusyError, StoreError
from cj_pipeline.metrics.catalogue import METRICS
from cj_pipeline.metrics.readings import (
    exposition,
    metrics_app,
    read_metrics,
    render_metrics,
    scraped_metrics,
)
from cj_pipeline.steps.advance import advance_to_end
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session
from tests.support import ROOT
from tests.support.batches import ManualClock, finish, open_engine, write_batch
from tests.support.finished_batches import SPRING, START, finished_batches

NOW = START + timedelta(days=1)


@pytest.fixture(scope="module")
def db() -> Iterator[Session]:
    """Three batches that have ended."""
    with finished_batches() as session:
        yield session


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of an exposition under its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """Return one sample of an exposition."""
    return samples(text)[name, frozenset(labels.items())]


def test_prometheus_reads_every_metric_as_what_it_is(db: Session) -> None:
    """A name, a kind or a help text that its parser takes otherwise is a wrong dashboard."""
    text = exposition(read_metrics(db, now=NOW, batch_id=SPRING, metrics=METRICS))

    families = {family.name: family for family in text_string_to_metric_families(text)}

    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_keep_to_prometheus_conventions(metric) -> None:
    """Counters end in _total, nothing else does, and help is one line that ends as a sentence."""
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.bounds) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(metric.bounds)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


def test_series_are_bounded_and_their_sum_is_kept() -> None:
    """A thousand models are five hundred series and one for the rest; a long name is cut."""
    store = FileStore.in_memory()
    with store.write() as db:
        run = {"fingerprint": "f", "definition": {}, "due_at": NOW, "is_met": True}
        db.insert(
            "trial_runs",
            [
                run
                | {"batch_id": f"b-{number}", "trial": f"t-{number:04d}-{'x' * 200}"}
                | {"concluded_at": NOW}
                for number in range(1000)
            ],
        )
        text = exposition(read_metrics(db, now=NOW))

    series = {k: v for k, v in samples(text).items() if k[0] == "cj_trial_runs_total"}
    assert len(series) == 501
    assert sum(series.values()) == 1000
    assert all(len(text) <= 100 for _, labels in series for _, text in labels)


def test_no_duration_is_negative_where_clocks_differ() -> None:
    """A provider's clock says whole seconds, ours says more: a histogram's sum would fall."""
    store = FileStore.in_memory()
    with store.write() as db:
        db.execute(
            "INSERT INTO provider_jobs BY NAME SELECT 'k' AS submission_key, 'b' AS batch_id,"
            " 1 AS wave, 'j' AS judge_id, 'provider_batch_api' AS batching_mode,"
            " 'openai' AS provider, 'm' AS model, 'a' AS account, 'settled' AS state,"
            " 1 AS n_requests, 1 AS n_bytes, 0.0 AS reserved_usd, $now AS intended_at,"
            " $now AS submitted_at, $now - INTERVAL 1 SECOND AS ended_at,"
            " $now - INTERVAL 2 SECOND AS collected_at",
            {"now": NOW},
        )
        text = exposition(read_metrics(db, now=NOW))

    for name in ("job_duration", "collection_delay"):
        labels = {"provider": "openai", "model": "m"}
        assert value(text, f"llm_provider_batch_api_{name}_seconds_sum", **labels) == 0


def test_counts_are_those_of_the_rows(db: Session) -> None:
    """Counted once in SQL for the metric and once here, row by row."""
    text = exposition(read_metrics(db, now=NOW))

    attempts = db.rows("FROM attempts JOIN provider_jobs USING (submission_key)")
    comparisons = Counter(row["status"] for row in db.rows("FROM comparisons"))
    decisions = Counter(row["decision"] for row in db.rows("FROM wave_decisions"))
    billed = Counter[tuple[str, str]]()
    for job in db.rows("FROM provider_jobs"):
        billed[job["provider"], job["model"]] += job["billed_usd"]
    found = samples(text)
    mode = {"batching_mode": "provider_batch_api"}
    assert value(text, "cj_llm_requests_total", **mode) == len(attempts)
    assert value(text, "cj_llm_batches_started_total", **mode) == 3
    for status, n in comparisons.items():
        assert value(text, "cj_comparisons_total", status=status) == n
    for decision, n in decisions.items():
        assert value(text, "cj_workflow_decisions_total", decision=decision) == n
    for (provider, model), usd in billed.items():
        name = "llm_provider_cost_usd_total"
        assert value(text, name, provider=provider, model=model) == pytest.approx(usd)
    for kind in ("prompt", "cached", "completion"):
        assert sum(
            n
            for (name, labels), n in found.items()
            if name == "llm_provider_tokens_total" and ("token_type", kind) in labels
        ) == sum(row[f"tokens_{kind}"] for row in attempts)
    assert sum(n for (name, _), n in found.items() if name == "llm_provider_requests_total") == len(
        attempts
    )


def test_a_histogram_counts_each_thing_measured_once(db: Session) -> None:
    """Buckets rise, the last holds all, and the sum is the sum."""
    text = exposition(read_metrics(db, now=NOW))
    sizes = [
        row["n_requests"] for row in db.rows("FROM provider_jobs") if row["model"] == "quality"
    ]
    name, labels = (
        "llm_provider_batch_api_items_per_job",
        {"provider": "emulator", "model": "quality"},
    )

    buckets = {
        dict(key[1])["le"]: n
        for key, n in samples(text).items()
        if key[0] == f"{name}_bucket" and ("model", "quality") in key[1]
    }

    for bound, n in buckets.items():
        assert n == sum(size <= float(bound) for size in sizes)
    assert value(text, f"{name}_count", **labels) == len(sizes)
    assert value(text, f"{name}_sum", **labels) == sum(sizes)


def test_what_batches_count_adds_up_to_what_the_store_counts(db: Session) -> None:
    """An assertion on a batch and an operator's dashboard mean the same thing by a name."""
    ids = [row["batch_id"] for row in db.rows("FROM batches")]

    whole = samples(exposition(read_metrics(db, now=NOW)))
    parts: Counter[object] = Counter()
    for batch_id in ids:
        parts.update(samples(exposition(read_metrics(db, now=NOW, batch_id=batch_id))))

    ages = {key for key in whole if "age_seconds" in key[0] or "silence" in key[0]}
    of_no_batch = {metric.name for metric in METRICS if "$batch" not in metric.sql}
    for key in {key for key in whole if key[0] not in of_no_batch} - ages:
        assert parts[key] == pytest.approx(whole[key]), key


def test_what_means_something_for_one_batch_only_is_not_scraped(db: Session) -> None:
    """Reliabilities do not add up, and a series per batch would grow for ever."""
    whole = exposition(read_metrics(db, now=NOW))

    assert "cj_batch_" not in whole
    assert SPRING not in whole


def test_one_batch_tells_how_good_its_scale_is(db: Session) -> None:
    """The figures are those of its last decision."""
    text = exposition(read_metrics(db, now=NOW, batch_id=SPRING))
    details = db.rows(
        "SELECT details FROM wave_decisions WHERE batch_id = ? ORDER BY wave DESC", [SPRING]
    )[0]["details"]

    mean = value(text, "cj_batch_standard_error", statistic="mean")
    lower = value(text, "cj_batch_reliability", estimate="empirical_bayes_lower")

    assert mean == details["bt_se_summary"]["mean_se"]
    assert lower == details["student_reliability"]["lower"]
    # Of eight students there is no single figure: only the limits say anything.
    assert 'estimate="empirical_bayes"' not in text
    assert value(text, "cj_batch_essays", role="anchor") == 6
    assert value(text, "cj_batch_duration_seconds") == 3600


def test_an_empty_store_already_says_zero() -> None:
    """`rate()` and alerts need a first value to rise from."""
    text = render_metrics(FileStore.in_memory())

    assert value(text, "cj_llm_requests_total", batching_mode="serial_bundle") == 0
    assert value(text, "cj_workflow_decisions_total", decision="resample") == 0
    assert value(text, "cj_batches", state="running") == 0
    assert value(text, "cj_oldest_open_request_age_seconds") == 0


def test_a_batch_is_seen_as_it_moves(tmp_path: Path) -> None:
    """A wave in flight is pending and grows old; brought home it is counted by its outcomes."""
    clock = ManualClock()
    engine = open_engine(tmp_path / "home", clock=clock)
    settings = {"judges": ["quality"], "all_at_once": True, "max_pairwise_comparisons": 6}
    folder = write_batch(tmp_path / "small", n_students=4, settings=settings)
    batch_id = ingest(engine, folder).batch_id
    plan_wave(engine, batch_id)
    n_sent = submit_wave(engine, batch_id).n_requests
    clock.sleep(600)

    with engine.store.read() as db:
        in_flight = exposition(read_metrics(db, now=clock()))
    for _ in advance_to_end(engine, batch_id, pause_s=60, sleep=clock.sleep):
        pass
    with engine.store.read() as db:
        at_end = exposition(read_metrics(db, now=clock()))

    open_jobs = {"provider": "emulator", "model": "quality"}
    assert value(in_flight, "cj_comparisons_pending") == n_sent
    assert value(in_flight, "llm_provider_batch_api_open_jobs", **open_jobs) == 1
    assert value(in_flight, "cj_oldest_open_request_age_seconds") == 600
    assert value(in_flight, "cj_longest_silence_seconds") == 600
    assert value(in_flight, "cj_spend_reserved_usd") > 0
    assert value(at_end, "cj_comparisons_pending") == 0
    assert value(at_end, "cj_spend_reserved_usd") == 0
    assert value(at_end, "cj_batches", state="succeeded") == 1
    requests = value(at_end, "cj_llm_requests_total", batching_mode="provider_batch_api")
    outcomes = [
        n for (name, _), n in samples(at_end).items() if name.startswith("llm_provider_req")
    ]
    assert requests == sum(outcomes) >= n_sent


def test_the_command_prints_what_prometheus_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrapped or coloured on the way."""
    engine = open_engine(tmp_path / "home")
    settings = {"judges": ["cj-generic-batch"], "max_resampling_passes_for_small_net": 0}
    folder = write_batch(tmp_path / "small", n_students=3, settings=settings)
    batch_id = ingest(engine, folder).batch_id
    finish(engine, batch_id)
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))

    whole = CliRunner().invoke(app, ["metrics"])
    one = CliRunner().invoke(app, ["metrics", batch_id])
    unknown = CliRunner().invoke(app, ["metrics", "*"])

    status = {"provider": "emulator", "model": "cj_generic_batch", "status": "completed"}
    assert value(whole.stdout, "llm_provider_batch_api_jobs_total", **status) == 1
    assert value(one.stdout, "cj_batch_first_shown_won_ratio") == 1
    assert unknown.exit_code == 1


def test_prometheus_scrapes_the_served_metrics(tmp_path: Path) -> None:
    """The real command over HTTP, scraped while a writer may come and go."""
    port = free_port()
    cj = Path(sys.executable).with_name("cj")
    server = subprocess.Popen(
        [cj, "metrics", "--serve", f"127.0.0.1:{port}"],
        env=os.environ | {"CJ_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
    )
    try:
        headers, body = scrape(port)
    finally:
        server.terminate()
        server.wait(10)

    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value(body, "cj_batches", state="running") == 0


def test_while_others_hold_the_store_only_that_and_who_is_told() -> None:
    """Figures from before would seem a quiet night; a target that is down names nobody."""

    class BusyStore(FileStore):
        @contextmanager
        def read(self) -> Iterator[Session]:
            raise StoreBusyError(holders=[('cj store "backup"', 4711)])
            yield

    body = scraped_metrics(BusyStore(Path("unused")))

    assert value(body, "cj_store_available") == 0
    assert 'cj_store_held{pid="4711",program="cj store \\"backup\\""} 1.0' in body
    assert "cj_batches" not in body


def test_a_store_that_cannot_be_read_is_a_target_that_is_down() -> None:
    """Figures from before would seem a quiet night."""

    class BrokenStore(FileStore):
        @contextmanager
        def read(self) -> Iterator[Session]:
            raise StoreError
            yield

    port = free_port()
    config = uvicorn.Config(
        metrics_app(BrokenStore(Path("unused"))), port=port, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with pytest.raises(HTTPError, match="503"):
            scrape(port)
    finally:
        server.should_exit = True
        thread.join(10)


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> tuple[dict[str, str], str]:
    """Return what /metrics answers, once the server listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
                return dict(reply.headers), reply.read().decode()
        except HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_the_page_lists_every_metric() -> None:
    """A reader who searches for a name there finds what the endpoint says of it."""
    page = (ROOT / "docs" / "metrics.md").read_text()

    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        help_text = metric.help.replace("|", "\\|")
        assert f"| `{metric.name}` ({metric.kind}) | {labels} | {help_text} |" in page


def test_trials_outcomes_and_webhooks_are_counted() -> None:
    """A trial that was missed, one that drifted, and one that still runs."""
    store = FileStore.in_memory()
    run = {"trial": "graded", "fingerprint": "f", "definition": {}, "due_at": NOW}
    runs = [
        {"batch_id": "one", "is_met": True, "drift": None, "concluded_at": NOW},
        {"batch_id": "two", "is_met": False, "drift": {"drifted": ["cost"]}, "concluded_at": NOW},
        {"batch_id": "three", "is_met": None, "drift": None, "concluded_at": None},
    ]
    ended = {"sequence": 1, "kind": "ended", "wave": 1, "checkpoint": 1, "n_done": 1}
    with store.write() as db:
        db.insert("trial_runs", [run | each for each in runs])
        db.insert(
            "progress_events",
            [
                ended
                | {"batch_id": batch_id, "outcome": "partial", "share_done": 1.0}
                | {"cost_usd": 0.0, "progress": {}, "recorded_at": NOW}
                for batch_id in ("one", "two")
            ],
        )
        hook = {"provider": "openai", "webhook_id": "w", "kind": "batch.completed"}
        db.insert("webhooks", [hook | {"n_jobs": 1, "received_at": NOW}])
        text = exposition(read_metrics(db, now=NOW))
        of_two = exposition(read_metrics(db, now=NOW, batch_id="two"))

    assert value(text, "cj_trial_runs_total", trial="graded", result="met") == 1
    assert value(text, "cj_trial_runs_total", trial="graded", result="missed") == 1
    assert value(text, "cj_trial_drifted_runs_total", trial="graded") == 1
    last = value(text, "cj_trial_last_concluded_timestamp_seconds", trial="graded")
    assert last == NOW.timestamp()
    assert value(text, "cj_outcomes_total", outcome="partial") == 2
    assert value(of_two, "cj_outcomes_total", outcome="partial") == 1
    hooks = {"provider": "openai", "kind": "batch.completed"}
    assert value(text, "llm_provider_webhooks_total", **hooks) == 1


def test_how_near_spending_is_to_each_limit_is_told() -> None:
    """The batch nearest to its own cap, and the day; no ceiling, no figure."""
    with finished_batches() as db:
        db.execute(
            "UPDATE batches SET state = 'running', settings = json_merge_patch(settings,"
            """ '{"spend_cap_usd": 2.0}') WHERE batch_id = ?""",
            [SPRING],
        )
        db.execute(
            "UPDATE provider_jobs SET reserved_usd = 0, possible_usd = 0, billed_usd = 0,"
            " intended_at = $now",
            {"now": NOW},
        )
        db.execute(
            "UPDATE provider_jobs SET billed_usd = 1.5 WHERE submission_key ="
            " (SELECT min(submission_key) FROM provider_jobs WHERE batch_id = ?)",
            [SPRING],
        )
        none = exposition(read_metrics(db, now=NOW))
        both = exposition(read_metrics(db, now=NOW, ceilings=Ceilings(3.0, 6.0)))

    assert value(none, "cj_spend_share_of_limit", limit="spend_cap_usd") == 0.75
    assert "usd_per_day" not in none
    assert value(both, "cj_spend_share_of_limit", limit="usd_per_batch") == 0.5
    assert value(both, "cj_spend_share_of_limit", limit="usd_per_day") == 0.25

"""What docs/architecture.md says of adding something, done once for each by the real seams."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from assets.automation.checks import checks_of
from cj_pipeline.batch.comparisons import RequestOutcome, Role
from cj_pipeline.checks import standard_checks
from cj_pipeline.checks.batch_checks import check_claims
from cj_pipeline.checks.claims import Finding
from cj_pipeline.checks.standard_checks import CHECKS, warns
from cj_pipeline.judging import provider_definitions
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Usage, estimated_tokens
from cj_pipeline.judging.prompts import Prompt, read_essays
from cj_pipeline.judging.provider_definitions import WIRES
from cj_pipeline.metrics import assertions, readings
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.metrics.catalogue import METRICS, Metric
from cj_pipeline.metrics.readings import exposition, read_metrics
from cj_pipeline.pairing import strategies
from cj_pipeline.pairing.comparison_graph import ComparisonGraph, PairChoice
from cj_pipeline.pairing.strategies import Chosen, PairStrategy
from cj_pipeline.pairing.waves import choose_wave
from cj_pipeline.providers import registry
from cj_pipeline.providers.base import (
    FoundJob,
    JobOutcome,
    JobStatus,
    ListedFile,
    ListedJob,
    LiveProvider,
    Provider,
    ProviderLimits,
    RawLine,
    Reply,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.store.migrations import Migration, known_migrations, migrate
from cj_pipeline.store.session import Session
from tests.support.batches import finish_judging, open_engine, write_batch
from tests.support.finished_batches import SPRING, START, finished_batches


@pytest.fixture
def db() -> Iterator[Session]:
    """Three batches that have ended."""
    with finished_batches() as session:
        yield session


# A provider


SMALL_JOBS = ProviderLimits(max_requests=10, max_bytes=1_000_000)


@dataclass(frozen=True)
class ByLength:
    """A service that prefers the longer essay; its jobs are in memory and end at once."""

    account: str
    jobs: dict[str, list[str]] = field(default_factory=dict)
    name: str = "yardstick"
    has_jobs: bool = True
    limits: ProviderLimits = SMALL_JOBS

    def build_request(
        self, prompt: Prompt, judge: Judge, custom_id: str, *, cache_prefix: bool = False
    ) -> dict[str, Any]:
        """Return the words: what this service reads."""
        return {"id": custom_id, "model": judge.model, "text": prompt.essays}

    def parse_reply(self, line: str) -> Reply:
        """Return what a line of its results says."""
        return read_line(line)

    def upload(self, shard: Path, submission_key: str) -> str | None:
        """Requests travel with `create`."""
        return None

    def create(self, shard: Path, input_file_id: str | None, submission_key: str) -> str:
        """Judge all requests of a shard at once."""
        requests = [json.loads(line) for line in shard.read_text().splitlines()]
        self.jobs[submission_key] = [self.single(request, timeout_s=1) for request in requests]
        return submission_key

    def find(self, submission_key: str, since: datetime, n_requests: int) -> tuple[FoundJob, ...]:
        """A job bears its submission key as its name."""
        return (FoundJob(submission_key, True, False),) if submission_key in self.jobs else ()

    def list_jobs(self, since: datetime) -> Iterator[ListedJob]:
        """Yield every job."""
        for key, lines in self.jobs.items():
            yield ListedJob(key, since, JobOutcome.COMPLETED, key, n_requests=len(lines))

    def list_files(self, since: datetime) -> Iterator[ListedFile]:
        """There are no files."""
        yield from ()

    def poll(self, job_id: str) -> JobStatus:
        """Every job has ended."""
        n_completed = len(self.jobs[job_id])
        return JobStatus(
            job_id, "ended", "done", JobOutcome.COMPLETED, n_completed=n_completed, n_failed=0
        )

    def collect(self, job_id: str) -> Iterator[RawLine]:
        """Yield a job's results."""
        for number, text in enumerate(self.jobs[job_id], start=1):
            yield RawLine("output", number, text)

    def cancel(self, job_id: str) -> JobStatus:
        """One that has ended stays as it is."""
        return self.poll(job_id)

    def discard(self, job_id: str | None, file_ids: Iterable[str]) -> None:
        """Nothing is left behind."""

    def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Return the longer essay of one request."""
        essays = read_essays(request["text"])
        assert essays is not None
        longer = "A" if len(essays[0]) >= len(essays[1]) else "B"
        verdict = {"winner": longer, "confidence": 3, "justification": "It is longer."}
        read = estimated_tokens(len(request["text"]))
        return json.dumps({"id": request["id"], "verdict": json.dumps(verdict), "read": read})

    def live(self, http: Any) -> LiveProvider:
        """Return what makes single calls."""
        return LiveByLength(self)


@dataclass(frozen=True)
class LiveByLength:
    """Single calls to the same service."""

    service: ByLength

    async def single(self, request: Mapping[str, Any], *, timeout_s: float) -> str:
        """Return the longer essay of one request."""
        return self.service.single(request, timeout_s=timeout_s)


def read_line(line: str) -> Reply:
    """Return what a line of the service's results says; never raises."""
    try:
        row = json.loads(line)
    except ValueError:
        return Reply(None, RequestOutcome.INVALID_OUTPUT, error_code="no_json", may_retry=True)
    used = Usage(prompt=row["read"], completion=10)
    return Reply(row["id"], RequestOutcome.SUCCEEDED, text=row["verdict"], usage=used)


def test_a_provider_is_an_adapter_a_parser_and_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With these entries a batch is judged to its end: nothing else knows which provider."""
    services: list[Provider] = []

    def adapter(connection: Any) -> Provider:
        services.append(ByLength(connection.account))
        return services[-1]

    monkeypatch.setattr(provider_definitions, "WIRES", WIRES | {"yardstick": ("measure",)})
    (tmp_path / "home" / "providers").mkdir(parents=True)
    (tmp_path / "home" / "providers" / "yardstick.yaml").write_text(
        "name: yardstick\nwire: yardstick\nbase_url: https://yardstick.invalid\n"
        "key_variable: YARDSTICK_KEY\nbatch: own\n"
    )
    monkeypatch.setitem(registry._ADAPTERS, "measure", adapter)
    monkeypatch.setitem(registry._PARSERS, "measure", lambda judge: read_line)
    settings = {"judges": ["longest"], "max_pairwise_comparisons": 10, "all_at_once": True}
    folder = write_batch(tmp_path / "batch", n_students=5, settings=settings)
    (folder / "judges").mkdir()
    judge = {"name": "longest", "provider": "yardstick", "model": "metre-1"}
    judge["price"] = {"input": 1, "output": 1, "source": "a test", "as_of": "2026-01-01"}
    (folder / "judges" / "longest.yaml").write_text(yaml.safe_dump(judge))

    engine = open_engine(tmp_path / "home", {"YARDSTICK_KEY": "k"})
    batch_id = ingest(engine, folder).batch_id
    finish_judging(engine, batch_id)

    with engine.store.read() as session:
        history = read_history(session, batch_id)
    assert len(services) == 1
    assert history.batch["state"] == "succeeded"
    assert len(history.succeeded) >= 10
    assert {row["provider"] for row in history.jobs} == {"yardstick"}
    assert all(row["billed_usd"] > 0 for row in history.jobs)
    n_bytes = {row["essay_id"]: row["n_bytes"] for row in history.essays}
    best, worst = history.last_scores[0], history.last_scores[-1]
    assert n_bytes[best["essay_id"]] == max(n_bytes.values())
    assert n_bytes[worst["essay_id"]] == min(n_bytes.values())


# A strategy


def least_certain_pairs(
    graph: ComparisonGraph, size: int, rng: np.random.Generator, *, may_repeat: bool
) -> Chosen:
    """Return new pairs, those first whose difference is least certain."""
    assert graph.covariance is not None
    one, other = np.triu_indices(graph.n_essays, 1)
    variance = np.diag(graph.covariance)
    uncertain = variance[one] + variance[other] - 2 * graph.covariance[one, other]
    order = np.lexsort((rng.random(len(one)), -uncertain))
    pairs = [(int(one[i]), int(other[i])) for i in order]
    new = [p for p in pairs if may_repeat or p[1] not in graph.partners[p[0]]]
    return [PairChoice(*pair, Role.INFORMATIVE) for pair in new[:size]], None


def test_a_strategy_is_a_function_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called once there are scores; coverage before that, and even positions always."""
    entry = PairStrategy(
        "least_certain",  # type: ignore[arg-type]
        choose=least_certain_pairs,
        pair_gains=None,
        needs_scores=True,
    )
    monkeypatch.setattr(strategies, "_STRATEGIES", {"least_certain": entry})
    variances = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.8])
    new = ComparisonGraph(tuple("abcdef"), frozenset(), ())
    ring = tuple(zip("abcdef", "bcdefa", strict=True))
    scored = replace(new, shown=ring, scores=np.arange(6.0), covariance=np.diag(variances))

    first = choose_wave(new, strategy=entry.name, size=6, seed=1)
    second = choose_wave(scored, strategy=entry.name, size=3, seed=1)

    assert {pair.role for pair in first} <= {Role.COVERAGE, Role.BRIDGE}
    assert {end for pair in first for end in (pair.essay_a, pair.essay_b)} == set("abcdef")
    # Of the pairs not shown yet, only those with e or f are uncertain.
    assert all({pair.essay_a, pair.essay_b} & set("ef") for pair in second)
    assert {pair.role for pair in second} == {Role.INFORMATIVE}


# A claim


def every_verdict_is_justified(history: BatchHistory) -> Finding:
    """Every verdict comes with a reason."""
    bare = [row["comparison_id"] for row in history.succeeded if not row["justification"]]
    return Finding(not bare, f"{len(bare)} verdicts without a reason", {"bare": len(bare)})


def test_a_claim_is_a_function_and_one_entry(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cj assert`, the artefact's checks and Dagster's asset checks all have it from the entry."""
    more = (*CHECKS["comparisons"], warns(every_verdict_is_justified))
    monkeypatch.setitem(standard_checks.CHECKS, "comparisons", more)  # type: ignore[arg-type]
    db.execute(
        "UPDATE comparisons SET justification = NULL WHERE batch_id = ? AND sequence <= 2", [SPRING]
    )

    found = {each.name: each for each in check_claims(read_history(db, SPRING))}
    shown = {spec.name: spec for spec in checks_of("comparisons").check_specs}

    checked = found["every_verdict_is_justified"]
    assert (checked.about, checked.is_blocking) == ("comparisons", False)
    assert not checked.finding.holds
    assert checked.finding.statement == "2 verdicts without a reason"
    assert shown["every_verdict_is_justified"].description == "Every verdict comes with a reason."
    assert not shown["every_verdict_is_justified"].blocking


# A metric


ESSAY_BYTES = Metric(
    "cj_essays_bytes",
    "gauge",
    "Size of the essays' texts in bytes, students and anchors apart.",
    ("is_anchor",),
    """
    SELECT is_anchor, sum(n_bytes) AS value FROM essays
    WHERE batch_id GLOB $batch GROUP BY is_anchor
    """,
)


def test_a_metric_is_one_entry(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus reads it, `cj metrics BATCH` counts it, and a batch may assert something of it."""
    monkeypatch.setattr(readings, "METRICS", (*METRICS, ESSAY_BYTES))
    monkeypatch.setitem(assertions._KNOWN, ESSAY_BYTES.name, ESSAY_BYTES)  # type: ignore[arg-type]
    by_batch = db.rows("SELECT batch_id, n_bytes FROM essays WHERE is_anchor")

    of_batch = read_metrics(db, now=START, batch_id=SPRING)
    family = next(
        family
        for family in text_string_to_metric_families(exposition(read_metrics(db, now=START)))
        if family.name == ESSAY_BYTES.name
    )

    assertion = OwnAssertion.read('cj_essays_bytes{is_anchor="True"} > 0')
    reading = next(r for r in of_batch if r.metric is ESSAY_BYTES)
    mine = sum(row["n_bytes"] for row in by_batch if row["batch_id"] == SPRING)
    assert assertion.figure(reading) == mine > 0
    assert {s.labels["is_anchor"]: s.value for s in family.samples}["True"] == sum(
        row["n_bytes"] for row in by_batch
    )


# A column


NEW_COLUMN = Migration(
    known_migrations()[-1].version + 1,
    "essay_languages",
    """
    ALTER TABLE essays ADD COLUMN language VARCHAR;
    COMMENT ON COLUMN essays.language IS 'two letters, ISO 639-1; NULL where nothing says';
    CREATE OR REPLACE VIEW v_essay_languages AS
    SELECT batch_id, essay_id, coalesce(language, 'unknown') AS language FROM essays;
    """,
)


def test_a_column_is_one_numbered_file() -> None:
    """Old rows get its default, new ones are written by its name, and a view shows both."""
    connection = duckdb.connect(":memory:")
    migrate(connection)
    session = Session(connection)
    essay = {
        "batch_id": "spring",
        "position": 1,
        "is_anchor": False,
        "text": "Words.",
        "source_path": "essays/x.txt",
        "file_name": "x.txt",
        "sha256": "0" * 64,
        "n_bytes": 6,
    }
    session.insert("essays", [essay | {"essay_id": "old"}])

    applied = migrate(connection, (*known_migrations(), NEW_COLUMN))
    session.insert("essays", [essay | {"essay_id": "new", "language": "sv"}])

    assert applied == (NEW_COLUMN,)
    assert session.rows("SELECT essay_id, language FROM v_essay_languages ORDER BY essay_id") == [
        {"essay_id": "new", "language": "sv"},
        {"essay_id": "old", "language": "unknown"},
    ]
    comment = session.one(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'essays'"
        " AND column_name = 'language'"
    )
    assert comment == {"comment": "two letters, ISO 639-1; NULL where nothing says"}

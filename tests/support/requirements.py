"""Makes docs/requirements.md: runs what each requirement is shown by, and tells what came out.

    python -m tests.support.requirements > docs/requirements.md

The requirements are those that harnesses, runners, profiles, engines and continuation gates which
this project replaces were built to, in this project's own words. Each has a command, which is run
here, or the part of the engine that the command calls; a test regenerates the page.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from typer.testing import CliRunner

from cj_pipeline.checks.batch_checks import check_assertions
from cj_pipeline.cli import app
from cj_pipeline.emulator import change_settings
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import TransientError
from cj_pipeline.live.retry import RetryRules
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.metrics.readings import render_metrics
from cj_pipeline.operations.execute import run_to_end, take_in
from cj_pipeline.progress.follow import POLL_EVERY_S
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.stopping.continuation import (
    BatchProgress,
    WorkflowRules,
    completion_denominator,
    decide_continuation,
)
from cj_pipeline.trials.definitions import load_trial
from cj_pipeline.trials.runs import TrialOutcome, conclude_trial, open_trial
from tests.support import ROOT
from tests.support.batches import finish, open_engine, write_batch

_PIPE = "\\|"
SETTINGS = {"judges": ["quality"], "max_pairwise_comparisons": 6, "all_at_once": True}


@dataclass
class World:
    """A home in which commands are run, each once however many requirements look at it."""

    place: Path
    _said: dict[tuple[str, ...], tuple[int, str]] = field(default_factory=dict)
    _outcomes: dict[str, TrialOutcome] = field(default_factory=dict)

    @cached_property
    def home(self) -> Path:
        """The store's folder."""
        return self.place / "home"

    @cached_property
    def runtime(self) -> Runtime:
        """A runtime over it."""
        return open_engine(self.home)

    @cached_property
    def folder(self) -> Path:
        """A folder of four essays."""
        return write_batch(self.place / "la", n_students=4, settings=SETTINGS)

    @cached_property
    def word_folder(self) -> Path:
        """A folder as such a runner has it: Word files, anchors with grades."""
        return load_trial("eng5", self.home).batch_folder(self.home)

    def cj(self, *words: object, **environment: str) -> tuple[int, str]:
        """Run a command once, and return its exit code and what it said in one line."""
        key = (*map(str, words), *sorted(f"{k}={v}" for k, v in environment.items()))
        if key not in self._said:
            done = CliRunner().invoke(
                app,
                [str(word) for word in words],
                env={"CJ_HOME": str(self.home), "COLUMNS": "400", **environment},
            )
            self._said[key] = done.exit_code, " ".join(done.output.split())
        return self._said[key]

    def trial(self, name: str) -> TrialOutcome:
        """Run a built-in trial to its conclusion, once."""
        if name not in self._outcomes:
            batch_id = f"trial-{name}"
            definition = load_trial(name, self.home)
            runtime = self.runtime
            if definition.emulator:
                settings = json.dumps({"latency_s": 0.0, **definition.emulator})
                runtime = open_engine(self.home, {"CJ_EMULATOR_SETTINGS": settings})
            open_trial(runtime, name, batch_id=batch_id)
            finish(runtime, batch_id)
            outcome = conclude_trial(runtime, batch_id)
            assert outcome is not None
            self._outcomes[name] = outcome
        return self._outcomes[name]

    def figures(self, name: str, *wanted: str) -> str:
        """Return figures of a trial whose expectations all hold."""
        outcome = self.trial(name)
        assert outcome.is_met, [f for f in outcome.findings if not f.holds]
        return ", ".join(f"`{each}` {_plain(outcome.figures[each])}" for each in wanted)

    def asserted(self, name: str, *expressions: str) -> str:
        """Return assertions on metrics that hold of a trial's batch."""
        self.trial(name)
        with self.runtime.store.read() as db:
            checked = check_assertions(
                db,
                f"trial-{name}",
                [OwnAssertion.read(each) for each in expressions],
                datetime.now(UTC),
            )
        assert all(each.finding.holds for each in checked), checked
        return "; ".join(
            f"`{each.name}`: {_plain(each.finding.figures['figure'])}" for each in checked
        )

    @cached_property
    def executed(self) -> dict[str, Any]:
        """The artefact of the folder of Word files, executed with the runner's own flags."""
        code, said = self.cj(
            *("execute", self.word_folder, "--batch-id", "eng5-{date}"),
            *("--set", "judges=[quality]", "--set", "all_at_once=true"),
            *("--set", "score_stability_threshold=null", "--max-comparisons", "60"),
            *("--llm-batching-mode", "provider_batch_api", "--await-completion"),
            *("--completion-timeout", "900", "--log-file", self.place / "log.jsonl"),
        )
        assert code == 0, said
        self.summary = said
        (path,) = self.home.glob("batches/eng5-*/assessment_run.execute.json")
        return json.loads(path.read_text())

    def batch(self, name: str, n_students: int, **settings: Any) -> dict[str, Any]:
        """Run a batch to its end through the engine, and return its row."""
        folder = write_batch(self.place / name, n_students=n_students, settings=settings)
        batch_id = take_in(self.runtime, folder, explicit={}).batch_id
        run_to_end(self.runtime, batch_id)
        return self.row(batch_id)

    def row(self, batch_id: str) -> dict[str, Any]:
        """Return a batch's row."""
        with self.runtime.store.read() as db:
            row = db.one("SELECT * FROM batches WHERE batch_id = ?", [batch_id])
        assert row is not None
        return row

    def count(self, sql: str) -> int:
        """Return one number from the store."""
        with self.runtime.store.read() as db:
            row = db.one(f"SELECT ({sql}) AS n")
        assert row is not None
        return int(row["n"])


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Requirement:
    """One line: what was asked for, the command that shows it, and what that comes to."""

    key: str
    asked: str
    command: str
    shown: Callable[[World], str]


def _preflight(world: World) -> str:
    doomed = write_batch(
        world.place / "doomed", n_students=30, settings=SETTINGS | {"max_pairwise_comparisons": 10}
    )
    code, said = world.cj("preflight", doomed, "--set", "judges=[quality, nobody]")
    assert code == 1
    both, told = world.cj("preflight", doomed)
    assert both == 1
    found = re.search(r"set max_pairwise_comparisons to at least \d+", told)
    assert found
    assert "nobody" in said
    return f"exit code 1; {found[0]}"


def _sends_nothing(world: World) -> str:
    before = world.count("SELECT count(*) FROM attempts")
    for mode in ("plan", "dry-run"):
        code, said = world.cj(mode, world.folder)
        assert code == 0, said
    assert world.count("SELECT count(*) FROM attempts") == before
    written = world.home / "dry-runs" / "batch-la"
    lines = sum(len(p.read_text().splitlines()) for p in written.glob("requests.*.jsonl"))
    assert (written / "assessment_run.dry-run.json").is_file()
    code, said = world.cj("verify", written / "assessment_run.dry-run.json", "--alone")
    assert code == 0, said
    return f"{lines} requests written, 0 sent; `cj verify`: {said.split('. ')[-1]}"


def _cap(world: World) -> str:
    row = world.batch(
        "capped",
        4,
        judges=["quality"],
        max_pairwise_comparisons=5,
        precise={"max_standard_error": 9},
    )
    asked = world.count("SELECT count(*) FROM comparison_pairs WHERE batch_id = 'capped'")
    assert asked <= 5
    code, said = world.cj("plan", world.folder, "--max-comparisons", "0")
    assert code == 2, said
    return f"{asked} of at most 5, ended as {row['end_reason']}; `--max-comparisons 0` is refused"


def _partial(world: World) -> str:
    waits = write_batch(world.place / "waits", n_students=4, settings=SETTINGS | {"seed": 3})
    slow = {"CJ_EMULATOR_SETTINGS": json.dumps({"latency_s": 3600})}
    log = world.place / "waits.jsonl"
    words = ("execute", waits, "--await-completion", "--completion-timeout", "1")
    code, said = world.cj(*words, "--log-file", log, **slow)
    assert code == 3, said
    assert '"event": "collector_timeout"' in log.read_text()
    artefact = world.home / "batches" / "waits" / "assessment_run.execute.json"
    is_partial = json.loads(artefact.read_text())["runner_status"]["partial_data"]
    asked = world.count("SELECT count(*) FROM attempts WHERE batch_id = 'waits'")
    again, _ = world.cj(*words, **slow, CJ_AGAIN="1")
    assert again == 3
    assert world.count("SELECT count(*) FROM attempts WHERE batch_id = 'waits'") == asked
    return (
        f"exit code {code}, `partial_data` {str(is_partial).lower()}, `collector_timeout`; asked"
        " again: 0 requests"
    )


def _artefact(world: World) -> str:
    document = world.executed
    assert document["validation"]["manifest"]
    assert all(len(each["sha256"]) == 64 for each in document["validation"]["manifest"])
    compared = document["llm_comparisons"]
    assert {"winner_id", "loser_id", "confidence", "tokens_prompt", "cost_usd"} <= set(compared[0])
    assert {"theta", "standard_error"} <= set(document["bt_summary"][0])
    assert document["costs"]["token_counts"]
    return (
        f"{len(document['bt_summary'])} scores with errors, {len(compared)} comparisons, costs of"
        f" {len(document['costs']['token_counts'])} model"
    )


def _twice(world: World) -> str:
    assert world.executed
    code, said = world.cj("execute", world.word_folder, "--await-completion")
    assert code == 1
    assert "--again" in said
    return (
        "exit code 1: the very same files are another batch; `--again` or a `--batch-id` allows it"
    )


def _summary(world: World) -> str:
    assert world.executed
    for part in ("tokens in", "retries", "partial_data: false", "artefact:", "Go on with: cj sql"):
        assert part in world.summary, part
    found = re.search(r"(\d+) comparisons of at most (\d+), in (\d+) waves", world.summary)
    assert found
    return f"{found[0]}; tokens and USD by model, retries, files, a query"


def _log(world: World) -> str:
    assert world.executed
    lines = [json.loads(line) for line in (world.place / "log.jsonl").read_text().splitlines()]
    told = Counter(line["event"] for line in lines)
    wanted = (
        *("runner_validation_state", "collector_started", "comparison_results_hydrated"),
        *("assessment_results_hydrated", "collector_finished", "runner_execution_complete"),
    )
    assert all(told[event] for event in wanted)
    assert all(
        {"correlation_id", "batch_id", "runner_mode"} <= set(line)
        for line in lines
        if line["event"] in wanted
    )
    return ", ".join(f"`{event}` {told[event]}" for event in wanted)


def _recipe(world: World) -> str:
    full = world.batch(
        "full-cap",
        6,
        judges=["cj-generic-batch"],
        max_pairwise_comparisons=15,
        score_stability_threshold=None,
    )
    rolled_back = world.cj("plan", world.folder, "--llm-batching-mode", "serial_bundle")
    assert rolled_back[0] == 0
    assert "serial_bundle (chosen)" in rolled_back[1]
    n = world.count("SELECT count(*) FROM comparisons WHERE batch_id = 'full-cap'")
    return f"full cap: {n} of 15, {full['end_reason']}; back to `serial_bundle` by one flag"


def _profile(world: World, *words: str, **environment: str) -> dict[str, str]:
    done = CliRunner().invoke(
        app, ["profile", "explain", *words], env={"CJ_HOME": str(world.home), **environment}
    )
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.strip()]
    return {row[0]: " ".join(row[1:3]) for row in rows if len(row) >= 3}


def _built_in(world: World) -> str:
    ci, nightly = _profile(world, "ci"), _profile(world, "nightly")
    fields = ("concurrency", "chunk_size", "timeout_seconds", "wait_timeout_seconds")
    assert _profile(world, "smoke")["mode"].startswith("serial")
    told = "; ".join(
        f"{name} {'/'.join(profile[each].split()[0] for each in fields)}, checkpoint"
        f" {profile['checkpoint_every'].split()[0]}"
        for name, profile in (("ci", ci), ("nightly", nightly))
    )
    rate = (nightly[each].split()[0] for each in ("rate_limit", "rate_window_seconds"))
    return f"{told}, {' per '.join(rate)} s; smoke is serial"


def _layers(world: World) -> str:
    found = _profile(world, "ci", "--set", "timeout_seconds=20", CJ_PROFILE_CONCURRENCY="6")
    serial = _profile(world, "ci", "--set", "mode=serial")
    shown = {each: found[each] for each in ("timeout_seconds", "concurrency", "chunk_size")}
    return (
        "; ".join(f"`{name}` {told}" for name, told in shown.items())
        + f"; flipped: `mode` {serial['mode']}"
    )


def _refused(world: World, *words: str) -> str:
    code, said = world.cj("profile", "explain", *words)
    assert code == 1, said
    return " ".join(said.replace("│", " ").split())


def _strict(world: World) -> str:
    assert "did you mean 'concurrency'" in _refused(world, "ci", "--set", "Concurency=2")
    assert "unknown profile" in _refused(world, "nighty")
    assert "name is empty" in _refused(world, "")
    own = world.home / "profiles.yaml"
    own.parent.mkdir(exist_ok=True)
    for text, told in (
        ("mine: {queue: 1}\nmine: {queue: 2}\n", "twice"),
        ("mine: [concurrency, 2]\n", "must hold fields"),
        ("profiles: {mine: {queue: 1}}\n", "`profiles:` at its top"),
    ):
        own.write_text(text)
        done = CliRunner().invoke(
            app, ["profile", "explain", "mine"], env={"CJ_HOME": str(world.home), "COLUMNS": "400"}
        )
        said = " ".join(done.output.split())
        assert done.exit_code == 1, said
        assert told in said, said
    own.unlink()
    return "each ends with exit code 1 and the nearest known name; so do keys given twice and lists"


def _together(world: World) -> str:
    assert "needs a concurrency" in _refused(world, "default", "--set", "chunk_size=2")
    assert "is above concurrency" in _refused(world, "ci", "--set", "chunk_size=5")
    assert "needs a rate_limit" in _refused(world, "ci", "--set", "rate_window_seconds=9")
    serial = ("--set", "mode=serial", "--set", "concurrency=4")
    assert "no meaning in mode serial" in _refused(world, "ci", *serial)
    return "all four are refused, exit code 1"


def _cannot_finish(world: World) -> str:
    said = _refused(world, "nightly", "--set", "rate_limit=1", "--set", "rate_window_seconds=60")
    found = re.search(r"set (wait_timeout_seconds to at least \d+)", said)
    assert found, said
    shared = write_batch(
        world.place / "shared",
        n_students=12,
        settings=SETTINGS
        | {
            "judges": ["strict", "mild"],
            "common_pairs": 1.0,
            "max_pairwise_comparisons": 40,
            "llm_batching_mode": "per_request",
            "profile_set": {"rate_limit": 5, "result_ttl_seconds": 300},
        },
    )
    (shared / "judges").mkdir()
    for name in ("strict", "mild"):
        (shared / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
        )
    code, told = world.cj("preflight", shared)
    assert code == 1, told
    both = re.search(r"2 judges that share its limits.*?(result_ttl_seconds to at least \d+)", told)
    assert both, told
    return f"refused: {found[0]}; of two judges that share a limit: set {both[1]}"


def _paced(world: World) -> str:
    """Six calls, two in any half second, looked at after every second one."""
    row = world.batch(
        "paced",
        4,
        **SETTINGS,
        llm_batching_mode="per_request",
        profile_set={
            "rate_limit": 2,
            "rate_window_seconds": 0.5,
            "checkpoint_every": 2,
            "timeout_seconds": 5,
            "wait_timeout_seconds": 60,
        },
    )
    with world.runtime.store.read() as db:
        begun = [
            each["sent_at"].timestamp()
            for each in db.rows("SELECT sent_at FROM live_calls WHERE batch_id = 'paced'")
        ]
        events = db.rows(
            "SELECT kind, checkpoint, outcome FROM progress_events WHERE batch_id = 'paced'"
        )
    assert len(begun) == 6
    assert max(begun) - min(begun) >= 0.9  # three windows, two of them waited for
    checkpoints = [each["checkpoint"] for each in events if each["kind"] == "checkpoint"]
    assert checkpoints == sorted(set(checkpoints))
    (outcome,) = [each["outcome"] for each in events if each["outcome"] is not None]
    assert row["state"] == "succeeded"
    return f"6 calls in three windows of two; no checkpoint twice; one end: {outcome}"


def _fast_targets(world: World) -> str:
    """Three targets, fifty prompts each, 200 ms a call."""
    judges = [f"fast-{number}" for number in range(3)]
    folder = write_batch(
        world.place / "fast",
        n_students=11,
        settings={
            "judges": judges,
            "common_pairs": 1.0,
            "all_at_once": True,
            "max_pairwise_comparisons": 150,
            "llm_batching_mode": "per_request",
            "profile_set": {"concurrency": 16},
        },
    )
    (folder / "judges").mkdir()
    for name in judges:
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
            f"settings: {{reasoning_effort: {('low', 'medium', 'high')[int(name[-1])]}}}\n"
        )
    runtime = open_engine(world.home, {"CJ_EMULATOR_SETTINGS": '{"call_latency_s": 0.2}'})
    run_to_end(runtime, take_in(runtime, folder, explicit={}).batch_id)
    with runtime.store.read() as db:
        row = db.one(
            "SELECT count(*) AS n, count(DISTINCT judge_id) AS n_judges,"
            " epoch(max(answered_at) - min(sent_at)) AS seconds FROM live_calls"
            " WHERE batch_id = 'fast'"
        )
    assert row is not None
    assert row["seconds"] < 30, row
    return (
        f"{row['n']} calls to {row['n_judges']} targets within 30 s; whoever watches looks"
        f" {1 / POLL_EVERY_S:g} times a second"
    )


def _reasons(world: World) -> str:
    world.trial("half-failing")
    with world.runtime.store.read() as db:
        reasons = db.rows(
            "SELECT outcome, count(*) AS n FROM attempts WHERE batch_id = 'trial-half-failing'"
            " AND outcome <> 'succeeded' GROUP BY outcome ORDER BY outcome"
        )
    home = world.place / "broken"
    home.mkdir()
    quick = RetryRules(first_wait_s=0.001, longest_wait_s=0.002)
    fault = {"kind": "status", "on": "*chat.create", "status": 500}
    change_settings(EmulatorConfig.from_environment({}, home), faults=[fault])
    runtime = open_engine(home, retry_rules=quick)
    folder = write_batch(
        world.place / "breaking",
        n_students=6,
        settings=SETTINGS | {"llm_batching_mode": "per_request", "max_pairwise_comparisons": 15},
    )
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    with suppress(TransientError):
        submit_wave(runtime, batch_id)
    with runtime.store.read() as db:
        breakers = db.rows("SELECT state, n_failures FROM circuit_breakers")
    assert reasons
    failed = ", ".join(f"`{each['outcome']}`" for each in reasons)
    (breaker,) = breakers
    assert breaker["n_failures"] > 1
    return f"failed as {failed}; of a provider that fails again and again: {breaker['state']}"


def _form(world: World) -> str:
    from tests.support.served_runtime import asking

    own = {"Origin": "http://127.0.0.1:8421"}
    files = [("files", (f"essay-{i}.txt", f"Essay {i} says so. " * 9)) for i in range(4)]
    with asking(world.runtime) as client:
        shown = client.post(
            "/start/plan",
            data={
                "batch_id": "by-form",
                "judges": ["quality", "quality-messages"],
                "max_pairwise_comparisons": "6",
                "instructions": "Say why.",
            },
            files=files,
            headers=own,
        )
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown.text))
        pressed = client.post("/start/batch", data=fields, headers=own, follow_redirects=False)
    assert "USD expected" in shown.text
    return (
        "the plan with its price; after its button"
        f" {pressed.status_code} to `{pressed.headers['location']}`"
    )


def _export(world: World) -> str:
    code, said = world.cj(
        *("sql", "--csv"), "SELECT count(*) AS n FROM comparisons WHERE batch_id = 'targets'"
    )
    assert code == 0, said
    return f"{said.split()[-1]} comparisons, counted in CSV"


def _reporters() -> str:
    text = (ROOT / "docs" / "migration-profiles.md").read_text("utf-8")
    (line,) = [each for each in text.splitlines() if each.startswith("| reporters of your own")]
    return line.split("|")[2].strip()


def _ci(_: World) -> str:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "test-all" in text or "pytest" in text
    return "this page is made anew by a test that each change has to pass"


def _targets(world: World) -> str:
    judges = [f"target-{number}" for number in range(10)]
    folder = write_batch(
        world.place / "targets",
        n_students=4,
        settings={
            "judges": judges,
            "common_pairs": 1.0,
            "all_at_once": True,
            "max_pairwise_comparisons": 60,
            "llm_batching_mode": "per_request",
            "max_attempts": 1,
            "max_answers_without_verdict": 1000,
        },
    )
    (folder / "judges").mkdir()
    for name in judges:
        model = "stubborn" if name == "target-9" else "quality"
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: {model}\n"
            "price: {input: 1, output: 1, source: made up, as_of: 2026-01-01}\n"
        )
    settings = {"judges": {"quality": {}, "stubborn": {"invalid_rate": 1.0}}}
    runtime = open_engine(world.home, {"CJ_EMULATOR_SETTINGS": json.dumps(settings)})
    batch_id = take_in(runtime, folder, explicit={}).batch_id
    run_to_end(runtime, batch_id)
    done = world.count(
        "SELECT count(*) FROM comparisons WHERE batch_id = 'targets' AND status = 'succeeded'"
    )
    return f"{done} verdicts of 9 targets, 6 failures of the tenth; {world.row(batch_id)['state']}"


def _service(world: World) -> str:
    from tests.support.served_runtime import asking

    with asking(world.runtime) as client:
        made = client.post(
            "/api/v1/batches",
            json={
                "batch_id": "by-http",
                "settings": SETTINGS,
                "instructions": "Say why.",
                "essays": [
                    {"essay_id": f"essay-{i}", "text": f"Essay {i} says so. " * 9} for i in range(4)
                ],
            },
        )
        seen = client.get("/api/v1/batches/by-http")
        gone = client.delete("/api/v1/batches/by-http")
    assert made.status_code == 202, made.text
    return f"POST {made.status_code}, GET {seen.status_code}, DELETE {gone.status_code}"


def _priority(world: World) -> str:
    folder = write_batch(
        world.place / "urgent",
        n_students=3,
        settings=SETTINGS | {"llm_batching_mode": "per_request"},
    )
    code, said = world.cj("execute", folder, "--priority", "high", "--await-completion")
    assert code == 0, said
    queue, said = world.cj("queue")
    assert queue == 0, said
    return f"`priority` {world.row('urgent')['settings']['priority']}; `cj queue` shows who waits"


def _gate(_: World) -> str:
    rules = WorkflowRules(10, False, 3, 4, 1, None, 12, 0.8)
    waits = decide_continuation(BatchProgress(5, 4, 2, 1, is_connected=True), rules)
    none = decide_continuation(BatchProgress(5, 0, 0, 0), rules)
    goes_on = decide_continuation(BatchProgress(5, 4, 4, 0, is_connected=True), rules)
    return (
        f"1 pending: {waits.decision.value}; nothing submitted: {none.decision.value}; all in:"
        f" {goes_on.decision.value}"
    )


def _denominator(_: World) -> str:
    def at(n: int, budget: int) -> int:
        return completion_denominator(n, WorkflowRules(budget, False, 3, 4, 1, None, 12, 0.8))

    return f"4 essays, budget 500: {at(4, 500)}; 100 essays, budget 500: {at(100, 500)}"


def _never_complete(world: World) -> str:
    assert world.trial("half-failing").is_met
    row = world.row("trial-half-failing")
    nothing = decide_continuation(
        BatchProgress(5, 10, 0, 10), WorkflowRules(10, False, 3, 4, 1, None, 12, 0.8)
    )
    assert nothing.reason is not None
    return f"half fail: {row['end_reason']}; nothing completed: {nothing.reason.value}"


def _flags(world: World) -> str:
    document = world.executed
    se, quality = document["bt_se_summary"], document["bt_quality_flags"]
    return f"{', '.join(f'`{key}`' for key in (*sorted(se), *sorted(quality)))}"


def _lower5_in_time(world: World) -> str:
    world.trial("lower5")
    row = world.row("trial-lower5")
    assert row["ended_at"] - row["created_at"] < timedelta(seconds=360)
    return "within 360 s of its arrival"


def _many_grades(world: World) -> str:
    document = world.executed
    anchors = document["inputs"]["anchors"]
    students = [row for row in document["bt_summary"] if not row["is_anchor"]]
    paths = [each["path"] for each in document["validation"]["manifest"] if each["role"] == "input"]
    assert sum(path.endswith(".docx") for path in paths) == len(students) + len(anchors)
    return f"{len(students)} students and {len(anchors)} anchors read from .docx"


ENVIRONMENT = (
    "CJ_ASSESSMENT_SERVICE_LLM_BATCHING_MODE",
    "CJ_ASSESSMENT_SERVICE_MAX_PAIRWISE_COMPARISONS",
    "CJ_ASSESSMENT_SERVICE_COMPARISONS_PER_STABILITY_CHECK_ITERATION",
    "CJ_ASSESSMENT_SERVICE_MIN_COMPARISONS_FOR_STABILITY_CHECK",
    "CJ_ASSESSMENT_SERVICE_SCORE_STABILITY_THRESHOLD",
    "LLM_PROVIDER_SERVICE_QUEUE_PROCESSING_MODE",
    "LLM_PROVIDER_SERVICE_BATCH_API_MODE",
)
FLAGS = (
    *("--batch-profile", "--concurrency", "--chunk-size", "--rate-limit", "--rate-window-seconds"),
    *("--checkpoint-every", "--result-ttl-seconds", "--timeout", "--batch-timeout", "--queue"),
)


def _maps(page: str, *names: str) -> str:
    text = (ROOT / "docs" / page).read_text("utf-8")
    missing = [
        name for name in names if not re.search(rf"^\| `{re.escape(name)}(?!\w)", text, re.M)
    ]
    assert not missing, missing
    return "each mapped in a table"


def _runs(page: str, *commands: str) -> str:
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.S | re.M))
    assert all(command in blocks for command in commands)
    return "each of its commands is run by a test"


def _metric_names(world: World) -> str:
    world.trial("provider-batch")
    shown = render_metrics(world.runtime.store, batch_id="trial-provider-batch")
    names = (
        "llm_provider_batch_api_jobs_total",
        "llm_provider_batch_api_items_per_job",
        "llm_provider_batch_api_job_duration_seconds",
    )
    least = [
        float(value)
        for value in re.findall(
            r"^llm_provider_batch_api_job_duration_seconds_sum\S* (\S+)$", shown, flags=re.M
        )
    ]
    assert all(name in shown for name in names)
    assert least
    assert min(least) >= 0
    return "all three; no duration is negative"


def _names(world: World) -> str:
    code, said = world.cj("plan", world.folder, "--batch-id", "label-{date}")
    assert code == 0, said
    found = re.search(r"Plan for (label-\d{4}-\d\d-\d\d)", said)
    assert found
    code, said = world.cj("plan", world.folder)
    assert "'la' is the batch 'batch-la'" in said
    return "`label-{date}` is filled in; `la` is told to be `batch-la`"


def _side_by_side(world: World) -> str:
    _targets_done = world.count("SELECT count(*) FROM batches WHERE batch_id = 'targets'")
    assert _targets_done
    code, said = world.cj("judge", "panel", "targets")
    assert code == 0, said
    return "`cj judge panel`: judges side by side"


def _progress(world: World) -> str:
    two_waves = {"max_pairwise_comparisons": 6, "wave_size": 3, "score_stability_threshold": None}
    world.batch("watched", 4, judges=["quality"], **two_waves)
    code, said = world.cj("watch", "watched", "--plain")
    assert code in {0, 10}, said
    for part in ("opened", "asked", "decided", "ended", "(100%)", "left", "$"):
        assert part in said, part
    return "opened, requested, decided and ended, each with share, pace, time left and cost"


SECTIONS: Mapping[str, tuple[Requirement, ...]] = {
    "Harness": (
        Requirement(
            "H1",
            "A regular batch through the provider's batch API: one wave, no continuation",
            "cj trial provider-batch",
            lambda w: w.figures("provider-batch", "waves", "submitted", "completed", "end_reason"),
        ),
        Requirement(
            "H2",
            "The counters of requests and batches by mode",
            "cj assert BATCH",
            lambda w: w.asserted(
                "provider-batch",
                'cj_llm_requests_total{batching_mode="provider_batch_api"} >= 1',
                'cj_llm_batches_started_total{batching_mode="provider_batch_api"} >= 1',
            ),
        ),
        Requirement(
            "H3",
            "The mode in the batch's metadata, the override in the stored request",
            "cj trial provider-batch",
            lambda w: w.figures("provider-batch", "batching_mode", "batching_mode_override"),
        ),
        Requirement(
            "H4",
            "The flag for the mode reaches the override",
            "cj execute FOLDER --llm-batching-mode provider_batch_api",
            lambda w: (
                "`llm_batching_mode_override` "
                + w.executed["settings"]["llm_batching_mode_override"]["value"]
                if isinstance(w.executed["settings"].get("llm_batching_mode_override"), dict)
                else "`llm_batching_mode_override` "
                + str(w.executed["settings"]["llm_batching_mode_override"])
            ),
        ),
        Requirement(
            "H5a",
            "Mock parity, generic: always A, 5 and 17 tokens at least",
            "cj trial generic-batch-api",
            lambda w: w.figures("generic-batch-api", "completed", "verdicts_for_a"),
        ),
        Requirement(
            "H5b",
            "Mock parity, LOWER5: 40 % A, 1000 and 30 tokens at least",
            "cj trial lower5",
            lambda w: w.figures("lower5", "completed", "verdicts_for_a"),
        ),
        Requirement(
            "H5c",
            "Mock parity, anchors: 35 of 66 A, 1100 and 40 tokens at least",
            "cj trial anchor",
            lambda w: w.figures("anchor", "completed", "verdicts_for_a"),
        ),
        Requirement(
            "H6", "Metrics of provider jobs, with sane values", "cj metrics BATCH", _metric_names
        ),
        Requirement(
            "H7",
            "A runbook from start to end",
            "docs/trial-from-start-to-end.md",
            lambda _: _runs("trial-from-start-to-end.md", "cj plan", "cj preflight", "cj execute"),
        ),
        Requirement("H8", "The suite runs for each change", "make test-all", _ci),
    ),
    "Runner": (
        Requirement(
            "R1",
            "The runner's flags by their names, ids with a date",
            "cj plan FOLDER --batch-id 'label-{date}'",
            _names,
        ),
        Requirement(
            "R2", "A folder of .docx files, anchors with grades", "cj execute FOLDER", _many_grades
        ),
        Requirement(
            "R3",
            "Plan and dry-run send nothing; requests and artefact meet their schema",
            "cj plan, cj dry-run, cj verify",
            _sends_nothing,
        ),
        Requirement(
            "R4",
            "Preflight of everything outside, all problems at once",
            "cj preflight FOLDER",
            _preflight,
        ),
        Requirement(
            "R5",
            "A cap is a cap (at least 1), never an obligation",
            "cj execute FOLDER --max-comparisons N",
            _cap,
        ),
        Requirement(
            "R6",
            "Await with a timeout: partial data marked, own exit code, nothing bought twice",
            "cj execute FOLDER --await-completion --completion-timeout 1",
            _partial,
        ),
        Requirement(
            "R7",
            "The artefact with essays, comparisons, scores, costs and a manifest",
            "cj execute FOLDER",
            _artefact,
        ),
        Requirement("R8", "A guard against the same input twice", "cj execute FOLDER", _twice),
        Requirement(
            "R9", "A summary at the terminal", "cj execute FOLDER --await-completion", _summary
        ),
        Requirement(
            "R10",
            "JSON logs with ids and the runner's events",
            "cj execute FOLDER --log-file FILE",
            _log,
        ),
        Requirement(
            "R11",
            "Stability: budget, wave size, first check, threshold",
            "cj explain FOLDER",
            lambda w: (
                "all four keys with their values and origins"
                if all(
                    key in w.cj("explain", w.folder)[1]
                    for key in (
                        "max_pairwise_comparisons",
                        "wave_size",
                        "min_comparisons_for_stability_check",
                        "score_stability_threshold",
                    )
                )
                else "missing"
            ),
        ),
        Requirement(
            "R12",
            "Recipes: full cap, all at once, roll back",
            "cj execute FOLDER --set score_stability_threshold=null",
            _recipe,
        ),
        Requirement(
            "R13",
            "Environment names of the services before",
            "docs/migration.md",
            lambda _: _maps("migration.md", *ENVIRONMENT),
        ),
        Requirement(
            "R14",
            "Serial bundles: calls and items per call",
            "cj metrics BATCH",
            lambda world: _bundles(world),  # noqa: PLW0108 -- defined below
        ),
        Requirement(
            "R15",
            "Metrics of before by name: queued requests, failures to fetch prompts",
            "docs/migration.md",
            lambda _: _maps(
                "migration.md",
                'llm_requests_total{status="queued"}',
                "huleedu_cj_prompt_fetch_failures_total",
            ),
        ),
    ),
    "Profiles": (
        Requirement("P1", "Built-in ci, smoke and nightly", "cj profile explain NAME", _built_in),
        Requirement(
            "P2",
            "Explicit over configured over built-in, by field, origin shown; one flips to serial",
            "cj profile explain ci --set FIELD=VALUE",
            _layers,
        ),
        Requirement(
            "P3",
            "Flags of before by name",
            "docs/migration-profiles.md",
            lambda _: _maps("migration-profiles.md", *FLAGS),
        ),
        Requirement(
            "P4",
            "Unknown fields and profiles, and an empty name, are refused",
            "cj profile explain NAME",
            _strict,
        ),
        Requirement(
            "P5",
            "Chunk, window and serial fit together",
            "cj profile explain NAME --set FIELD=VALUE",
            _together,
        ),
        Requirement(
            "P6",
            "What cannot finish is refused with the numbers to change",
            "cj profile explain nightly --set profile.rate_limit=1",
            _cannot_finish,
        ),
        Requirement(
            "P7",
            "A sliding window, checkpoints once per crossed multiple, one terminal status",
            "cj execute FOLDER --set profile.rate_limit=2",
            _paced,
        ),
        Requirement(
            "P8",
            "A reporter of one's own for checkpoints and the end",
            "docs/migration-profiles.md",
            lambda _: _maps("migration-profiles.md", "none") and _reporters(),
        ),
    ),
    "Engine": (
        Requirement(
            "E1",
            "Ten targets at once; one that fails holds up no other",
            "cj execute FOLDER",
            _targets,
        ),
        Requirement(
            "E2",
            "Progress in real time, with percentage, pace and time left",
            "cj watch BATCH",
            _progress,
        ),
        Requirement("E3", "Submit, look and cancel over HTTP", "cj serve", _service),
        Requirement(
            "E4",
            "Priorities low, normal and high; the queue is visible",
            "cj execute FOLDER --priority high; cj queue",
            _priority,
        ),
        Requirement("E5", "Results of targets side by side", "cj judge panel BATCH", _side_by_side),
        Requirement("E6", "Export", "cj sql --csv", _export),
        Requirement(
            "E7",
            "Three targets, 50 prompts each, 200 ms a call: under 30 s",
            "cj execute FOLDER",
            _fast_targets,
        ),
        Requirement(
            "E8",
            "Retries with reasons, a breaker for each model",
            "cj trial half-failing",
            _reasons,
        ),
        Requirement("E9", "A page to configure and launch a batch", "cj serve", _form),
    ),
    "Continuation": (
        Requirement(
            "C1", "Nothing is decided while callbacks are pending", "cj execute FOLDER", _gate
        ),
        Requirement(
            "C2",
            "One denominator: every pair for small nets, the budget for large ones",
            "cj plan FOLDER",
            _denominator,
        ),
        Requirement(
            "C3",
            "Half failing, or nothing completed, is never complete",
            "cj trial half-failing",
            _never_complete,
        ),
        Requirement(
            "C4a",
            "LOWER5: 10 + 3 x 10 = 40, 8 and 8 positions",
            "cj trial lower5",
            lambda w: w.figures(
                "lower5", "completed", "resampling_pass_count", "fewest_shown_a", "most_shown_b"
            ),
        ),
        Requirement(
            "C4b",
            "24 essays, 288 comparisons",
            "cj trial regular",
            lambda w: w.figures("regular", "completed", "resampling_pass_count"),
        ),
        Requirement(
            "C4c",
            "24 essays, 552 comparisons",
            "cj trial regular-552",
            lambda w: w.figures("regular-552", "completed", "largest_positional_skew"),
        ),
        Requirement(
            "C4d",
            "24 essays, provider batch with cap 60",
            "cj trial provider-batch",
            lambda w: w.figures("provider-batch", "n_essays", "completed"),
        ),
        Requirement(
            "C4e",
            "Two essays",
            "cj trial minimum",
            lambda w: w.figures("minimum", "n_essays", "completed"),
        ),
        Requirement(
            "C4f",
            "120 essays, 600 comparisons",
            "cj trial large",
            lambda w: w.figures("large", "n_essays", "completed"),
        ),
        Requirement("C5", "LOWER5 in time", "cj trial lower5", _lower5_in_time),
        Requirement(
            "C6", "The keys of the error summary and the quality flags", "cj execute FOLDER", _flags
        ),
    ),
}


def _bundles(world: World) -> str:
    folder = write_batch(
        world.place / "bundled",
        n_students=4,
        settings=SETTINGS | {"llm_batching_mode": "serial_bundle"},
    )
    code, said = world.cj("execute", folder, "--await-completion")
    assert code == 0, said
    shown = render_metrics(world.runtime.store, batch_id="bundled")
    calls = re.search(r"^llm_provider_serial_bundle_calls_total\S* (\S+)$", shown, flags=re.M)
    items = re.search(
        r"^llm_provider_serial_bundle_items_per_call_sum\S* (\S+)$", shown, flags=re.M
    )
    assert calls
    assert items
    return f"{float(calls[1]):g} call of {float(items[1]):g} items"


def table(section: str, world: World) -> str:
    """Return one section of the page."""
    lines = [
        f"## {section}",
        "",
        "| | Requirement | Command | What came out |",
        "|---|---|---|---|",
    ]
    for each in SECTIONS[section]:
        came = each.shown(world).replace("|", _PIPE)
        command = (
            f"[{each.command}]({each.command[5:]})"
            if ".md" in each.command
            else f"`{each.command}`"
        )
        lines.append(f"| {each.key} | {each.asked} | {command} | {came} |")
    return "\n".join(lines)


HEAD = """# Requirements and what shows them

What the harnesses, runners, profiles and engines that this project replaces were asked for, line by
line, with the command that shows it and what came out when a test ran it. The page is generated by
`python -m tests.support.requirements > docs/requirements.md`; the test fails if it differs."""


def page(place: Path) -> str:
    """Return the whole page."""
    world = World(place)
    return "\n\n".join([HEAD, *(table(section, world) for section in SECTIONS)])


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory() as scratch:
        print(page(Path(scratch)))

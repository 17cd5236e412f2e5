"""The runner's discipline, through the real command: preflight, caps, patience, logs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.outputs.contracts import violations
from cj_pipeline.store.file_store import FileStore
from tests.support.batches import write_batch

CJ = Path(sys.executable).with_name("cj")

COUNTED = {"judges": ["cj-generic-batch"], "max_resampling_passes_for_small_net": 0}


def batch_folder(tmp_path: Path, name: str = "small", **settings: Any) -> Path:
    """Return a folder of three students that ends after its three pairs."""
    return write_batch(tmp_path / name, n_students=3, settings=COUNTED | settings)


def cj(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    return subprocess.run(
        [CJ, *words],
        env=environment | {"CJ_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def events(path: Path) -> list[dict[str, Any]]:
    """Return a log's lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def flowing(text: str) -> str:
    """Return text as it was before a terminal broke its lines."""
    return re.sub(r"[\s│]+", " ", text)


def artefact(home: Path, batch_id: str = "small") -> dict[str, Any]:
    """Return a batch's artefact."""
    path = home / "batches" / batch_id / "assessment_run.execute.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


@pytest.mark.slow
def test_patience_that_runs_out_leaves_partial_data_and_the_next_run_completes_it(
    tmp_path: Path,
) -> None:
    """Exit codes, artefact and log tell the same story, in processes of their own."""
    home, folder = tmp_path / "home", batch_folder(tmp_path)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    command = ("execute", str(folder), "--await-completion", "--log-file")

    gave_up = cj(home, *command, str(first), "--completion-timeout", "0")
    partial = artefact(home)
    done = cj(home, *command, str(second))
    whole = artefact(home)

    assert (gave_up.returncode, done.returncode) == (3, 0), gave_up.stderr + done.stderr
    assert "nothing is lost" in gave_up.stderr
    assert partial["runner_status"]["partial_data"] is True
    assert partial["runner_status"]["pending_comparisons"] == 3
    assert list(violations(partial, partial["validation"]["contract"])) == []
    assert whole["runner_status"]["partial_data"] is False
    assert "completion_timeout_s" not in whole["runner_status"]

    lines = events(first) + events(second)
    bound = {(e["batch_id"], e["correlation_id"], e["runner_mode"]) for e in lines}
    assert bound == {("small", whole["metadata"]["correlation_id"], "execute")}
    assert [e["event"] for e in events(first) if e["event"].startswith(("runner", "coll"))] == [
        "runner_validation_state",
        "collector_started",
        "collector_progress",
        "collector_timeout",
        "runner_execution_complete",
    ]
    told = [e["event"] for e in events(second)]
    for event in (
        "collector_started",
        "comparison_results_hydrated",
        "assessment_results_hydrated",
        "collector_finished",
    ):
        assert event in told
    assert told[-1] == "runner_execution_complete"
    last, before = events(second)[-1], events(first)[-1]
    assert (before["partial_data"], last["partial_data"]) == (True, False)
    content = Path(last["artefact"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == last["artefact_sha256"]
    essays = [path.read_text() for path in (folder / "essays").iterdir()]
    assert not any(essay in second.read_text() for essay in essays)


def test_everything_that_is_not_in_order_is_told_at_once_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look, one list, one mending: keys and caps as well as files."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CJ_TEST_KEY", "sk-secret-of-the-test")
    folder = batch_folder(tmp_path, judges=["keyless", "unreachable"], spend_cap_usd=0.000001)
    write_judges(folder)
    log = tmp_path / "log.jsonl"

    looked = CliRunner().invoke(app, ["preflight", str(folder)])
    tried = CliRunner().invoke(app, ["execute", str(folder), "--log-file", str(log)])

    for result in (looked, tried):
        assert result.exit_code == 1
        for told in ("OPENAI_API_KEY", "spend_cap_usd", "judge unreachable"):
            assert told in flowing(result.output), result.output
        assert "sk-secret" not in flowing(result.output)
    (validation,) = events(log)
    assert "sk-secret" not in log.read_text()
    assert validation["event"] == "runner_validation_state"
    assert validation["is_ready"] is False
    assert validation["n_problems"] == 3
    with FileStore(tmp_path / "home").read() as db:
        assert db.rows("SELECT * FROM batches") == []
        assert db.rows("SELECT * FROM provider_jobs") == []


def write_judges(folder: Path) -> None:
    """Write a judge whose key is missing, and one whose server does not answer."""
    own = {"provider": "openai", "model": "gpt-4.1-mini-2025-04-14"}
    away = {"base_url": "http://127.0.0.1:1/v1", "key_variable": "CJ_TEST_KEY"}
    (folder / "judges").mkdir()
    for name, more in (("keyless", {}), ("unreachable", away)):
        content = yaml.safe_dump({"name": name, **own, **more})
        (folder / "judges" / f"{name}.yaml").write_text(content)


def test_files_that_are_wrong_are_told_with_the_rest_and_the_batch_is_seen_as_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when a folder is dropped into the inbox."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    folder = batch_folder(tmp_path, wave_sise=3)
    (folder / "essays" / "student-001.txt").write_text("")

    result = CliRunner().invoke(app, ["execute", str(folder)])

    assert result.exit_code == 1
    assert "wave_sise" in flowing(result.output)
    assert "student-001.txt is empty" in flowing(result.output)
    with FileStore(tmp_path / "home").read() as db:
        assert db.rows("SELECT state FROM batches") == [{"state": "rejected"}]


def test_the_same_files_are_not_bought_twice_by_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied folder is the same batch by another name; who means it says so."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    folder = batch_folder(tmp_path)
    other = tmp_path / "other-name"
    shutil.copytree(folder, other)
    run = CliRunner()
    assert run.invoke(app, ["execute", str(folder)]).exit_code == 0

    same_name = run.invoke(app, ["execute", str(folder)])
    refused = run.invoke(app, ["execute", str(other)])
    meant = run.invoke(app, ["execute", str(other), "--again"])

    assert same_name.exit_code == 0
    assert "0 comparisons requested" in same_name.output
    assert refused.exit_code == 1
    assert "batch 'small'" in flowing(refused.output)
    assert meant.exit_code == 0


def test_the_cap_is_a_cap_and_no_obligation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three pairs may be asked, and two are; a hundred may be, and three are."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    run = CliRunner()

    few = run.invoke(app, ["execute", str(batch_folder(tmp_path, "few")), "--max-comparisons", "2"])
    many = run.invoke(
        app,
        [
            "execute",
            str(batch_folder(tmp_path, "many", title="Many")),
            *("--await-completion", "--max-comparisons", "100"),
        ],
    )

    assert "few: 2 comparisons requested" in few.output
    assert many.exit_code == 0
    with FileStore(tmp_path / "home").read() as db:
        rows = db.rows("SELECT batch_id, count(*) AS n FROM attempts GROUP BY ALL ORDER BY ALL")
    assert rows == [{"batch_id": "few", "n": 2}, {"batch_id": "many", "n": 3}]


def test_a_batch_in_the_store_can_be_looked_at_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is taken on: is its provider still there, are its anchors still graded?"""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    run = CliRunner()
    run.invoke(app, ["execute", str(batch_folder(tmp_path))])

    by_name = run.invoke(app, ["preflight", "small"])
    unknown = run.invoke(app, ["preflight", "large"])
    without = run.invoke(app, ["preflight"])

    assert by_name.exit_code == 0
    assert "answers and takes the key" in flowing(by_name.output)
    assert unknown.exit_code == 1
    assert without.exit_code == 0


def test_anchors_that_cannot_carry_grades_are_told_before_anything_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants scores and ranks alone names no scale, or says so."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    settings = COUNTED | {"scale": "eng5_np_national_9_step"}
    folder = write_batch(tmp_path / "graded", n_students=3, n_anchors=1, settings=settings)

    result = CliRunner().invoke(app, ["preflight", str(folder)])
    insisted = CliRunner().invoke(app, ["preflight", str(folder), "--anyway"])

    assert (result.exit_code, insisted.exit_code) == (1, 0)
    assert "never give grades" in flowing(result.output)


@pytest.mark.parametrize("mode", ["plan", "dry-run"])
def test_a_plan_and_a_dry_run_are_told_to_the_log_too(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three modes, one log: what was looked at, by whom, and that nothing was asked."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    log = tmp_path / "log.jsonl"
    wrong = batch_folder(tmp_path, "wrong", wave_sise=1)

    read = CliRunner().invoke(app, [mode, str(batch_folder(tmp_path)), "--log-file", str(log)])
    refused = CliRunner().invoke(app, [mode, str(wrong), "--log-file", str(log)])

    assert (read.exit_code, refused.exit_code) == (0, 1)
    lines = [e for e in events(log) if e["event"].startswith("runner_")]
    assert [(e["event"], e["batch_id"], e["runner_mode"]) for e in lines] == [
        ("runner_validation_state", "small", mode),
        ("runner_execution_complete", "small", mode),
        ("runner_validation_state", "wrong", mode),
    ]
    assert [e.get("is_ready") for e in lines] == [True, None, False]


@pytest.mark.parametrize("command", ["plan", "dry-run", "execute"])
def test_each_file_of_a_batch_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """What was checked is what is judged: between two looks a file may change."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    folder = batch_folder(tmp_path)
    read: Counter[str] = Counter()
    open_file = io.open

    def counted(file: Any, *given: Any, **options: Any) -> Any:
        if isinstance(file, Path) and folder.resolve() in file.resolve().parents:
            read[file.resolve().relative_to(folder.resolve()).as_posix()] += 1
        return open_file(file, *given, **options)

    monkeypatch.setattr(io, "open", counted)

    result = CliRunner().invoke(app, [command, str(folder)])

    assert result.exit_code == 0, result.output
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert read == Counter(path.relative_to(folder).as_posix() for path in files)

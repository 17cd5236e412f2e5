"""What holds of every command there is: each is run once, over one home, with the usual umask."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import uvicorn
from typer.testing import CliRunner, Result

from assets.automation import in_process
from cj_pipeline.cli import app
from cj_pipeline.storage.private_files import open_to_others
from tests.support.batches import write_batch

VERDICTS = """essay_a,essay_b,winner,judge,decided_at
student-001,student-002,student-001,Bo,2026-03-02T08:00:00Z
"""
SETTINGS = {
    "judges": ["quality"],
    "max_pairwise_comparisons": 3,
    "max_resampling_passes_for_small_net": 0,
}

COMMANDS: Mapping[str, str] = {
    "keys create": "",
    "keys show": "",
    "plan": "{batch}",
    "explain": "{batch}",
    "preflight": "{batch}",
    "dry-run": "{batch}",
    "execute": "{batch} --await-completion",
    "watch": "small",
    "status": "",
    "inbox": "",
    "queue": "",
    "cancel": "small",
    "demo": "small",
    "report": "small",
    "essay": "small student-001",
    "cost": "",
    "verify": "{artefact}",
    "assert": "small cj_comparisons_pending==0",
    "regrade": "small",
    "link": "small --alone",
    "moderate": "small --judge student-001 --reason asked --by Bo",
    "rejudge": "small student-001 --reason asked --by Bo",
    "release": "small --by Bo",
    "feedback": "small student-001 --edit {feedback} --by Bo",
    "doctor": "",
    "reparse": "small",
    "people link": "small Bo",
    "people show": "small",
    "people agreement": "small",
    "people revoke": "small Bo",
    "verdicts import": "small {verdicts} --name first",
    "verdicts list": "small",
    "verdicts withdraw": "small first --by Bo",
    "people export": "Bo {home}/exports/bo.json",
    "people forget": "Bo --yes",
    "judge list": "",
    "judge show": "quality",
    "judge examine": "quality --yes",
    "judge compare": "{batch} --judge quality --pairs 1",
    "judge panel": "small",
    "trial run": "minimum",
    "trial list": "",
    "trial history": "minimum",
    "profile list": "",
    "profile explain": "",
    "store migrate": "",
    "store backup": "{home}/backups/monday.duckdb",
    "store restore": "{home}/backups/monday.duckdb",
    "store moved": "--yes",
    "store archive": "--older-than-days 0",
    "store compact": "",
    "store serve": "--port {port}",
    "token create": "office --scope read",
    "token list": "",
    "token revoke": "office",
    "ui": "--port 0",
    "serve": "--port 0",
    "work": "--until-done",
    "emulator": "--port 0",
    "metrics": "",
    "notify": "",
    "compare": "small small --page {home}/exports/compared.html",
    "export": "small {home}/exports --provisional",
    "sql": "FROM~essays --parquet {home}/exports/essays.parquet",
    "pages": "small {home}/exports/pages --essay student-001",
    "oversight": "small {home}/exports/oversight.md",
    "verdicts export": "small {home}/exports/verdicts.csv",
    "forget": "small --yes",
    "store check": "--fix",
}
"""The words after each command's name; `~` is a space within a word."""

ENDS = {"rejudge": 1, "release": 1, "trial run": 4, "trial history": 1, "store serve": 130}
"""The exit codes of those that refuse, that no server answers here, or that are interrupted."""


EXPORTS = ("compare", "export", "sql", "pages", "oversight", "verdicts export", "people export")
"""Commands that write where they are told to; `cj forget` knows of each file."""


def commands_of(command: click.Command, name: str = "") -> Iterator[str]:
    """Yield the name of every command of a parser, as a person types it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for each, held in inner.items():
        yield from commands_of(held, f"{name} {each}".strip())


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """As on most machines; commands change it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_whatever_is_run_others_may_read_nothing_that_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that was there, with a file that others read: both are named, not changed."""
    home = tmp_path / "home"
    _prepare(home)
    theirs = {home, home / "installation.yaml"}
    assert set(open_to_others(home)) == theirs
    _let_nothing_go_on(monkeypatch)
    monkeypatch.setenv("CJ_HOME", str(home))
    files = _files(tmp_path, home)

    assert sorted(COMMANDS) == sorted(commands_of(typer.main.get_command(app)))
    for name, words in COMMANDS.items():
        os.umask(0o022)
        done = _cj(home, name, words, files)

        assert done.exit_code == ENDS.get(name, 0), (name, done.output)
        if name == "store check":
            theirs = set()
        assert set(open_to_others(home)) <= theirs, name
        n_exported = sum(path.is_file() for path in (home / "exports").rglob("*"))
        assert n_exported == 0 if name == "forget" else n_exported >= (name in EXPORTS), name


def _cj(home: Path, name: str, words: str, files: Mapping[str, Path]) -> Result:
    found: dict[str, Any] = {
        "artefact": next((home / "batches").glob("small/assessment_run*.json"), home)
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        found["port"] = free.getsockname()[1]
    given = [word.format(**files, **found).replace("~", " ") for word in words.split()]
    return CliRunner().invoke(app, [*name.split(), *given])


def _prepare(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "installation.yaml").write_text("published: owner\n")
    (home / "installation.yaml").chmod(0o644)


def _files(folder: Path, home: Path) -> dict[str, Path]:
    """Return the files that commands are given, by the names they have above."""
    files = {"home": home}
    files["batch"] = write_batch(folder / "small", n_students=3, settings=SETTINGS)
    for name, text in (
        ("essay", "A walk."),
        ("feedback", "Well done. [teacher]"),
        ("verdicts", VERDICTS),
    ):
        files[name] = folder / f"{name}.csv"
        files[name].write_text(text)
    return files


def _let_nothing_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what runs until it is stopped, and Dagster's runs, come to their end at once."""

    class Stopped:
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def sleep(self, seconds: float) -> None:
            del seconds
            raise KeyboardInterrupt

    def become(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr("cj_pipeline.commands.store.time", Stopped())
    monkeypatch.setattr(os, "fork", lambda: 1)
    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(in_process, "run_batch", lambda *_: iter(()))
    monkeypatch.setenv("CJ_STORE_TOKEN", "a-token-of-tests-0123456789")

"""Runs every command that reads with `--json`, and writes the shapes down for docs/json-output.md.

    python -m tests.support.json_shapes

rewrites the page's list. Only the page's beginning is written by hand; a test compares the rest. A
field that is gone, or is another thing now, breaks readers: count the version in `@reads(...)` up.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cj_pipeline.cli import PANELS, Command, app, name_of
from cj_pipeline.outputs.artefact import write_artefact
from cj_pipeline.runtime import RunEnvironment
from cj_pipeline.storage.signing import make_key
from cj_pipeline.storage.token_file import add_token
from cj_pipeline.tokens import new_token
from tests.support import ROOT
from tests.support.batches import begin, open_engine, write_batch
from tests.support.finished_batches import BROKEN, SPRING, START, fill, insert_all, spring_rows

PAGE = ROOT / "docs" / "json-output.md"
BEGIN = "<!-- made by `python -m tests.support.json_shapes`; not written by hand from here -->\n"

AGAIN, OPEN, STUDENT = "spring-9-again", "open", "pupil-03"

BY_NAME = {
    ("cj compare 1", "batches[].grades"),
    ("cj essay 1", "probabilities"),
    ("cj judge compare 1", "judges[].failures"),
    ("cj judge compare 1", "judges[].intervals"),
    ("cj judge examine 1", "injections"),
    ("cj judge show 1", "settings"),
    ("cj assert 1", "claims[].finding.figures"),
    ("cj metrics 1", "metrics[].series[].labels"),
    ("cj store check 1", "found.rows"),
    ("cj trial history 1", "runs[].definition"),
    ("cj trial history 1", "runs[].figures"),
    ("cj reparse 1", "found.kinds"),
}
"""Objects whose fields are named by what is in them, as grades are."""

OF_ANY_KIND = {("cj explain 1", "settings[].value")}


@dataclass(frozen=True)
class Prepared:
    """A home with something to read for every command, and a batch folder beside it."""

    home: Path
    folder: Path
    artefact: Path


def prepare(below: Path) -> Prepared:
    """Make them."""
    home = below / "home"
    runtime = open_engine(home)
    with runtime.store.write() as db:
        fill(db)
        insert_all(db, spring_rows(AGAIN))
        db.insert("arrivals", [_arrival()])
        db.insert("circuit_breakers", [_breaker()])
        db.insert("trial_runs", [_trial_run()])
    begin(runtime, write_batch(below / OPEN, n_students=4, settings={"judges": ["quality"]}))
    folder = write_batch(
        below / "next",
        n_students=4,
        n_anchors=9,
        settings={"judges": ["quality"], "scale": "eng5_np_national_9_step"},
    )
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET waiting_for = 'key', error = 'a key' WHERE batch_id = ?",
            [OPEN],
        )
    with runtime.store.read() as db:
        written = write_artefact(
            db,
            SPRING,
            "execute",
            home / "batches" / SPRING,
            generated_at=datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
            environment=RunEnvironment("0a1b2c3", "0.1.0", "3.11.9", "Linux"),
        )
    runtime.store.publish()
    make_key(home, replace=False)
    add_token(home, "anna", new_token(), scopes=["read"], batches=["*"], expires=date(2040, 1, 1))
    return Prepared(home, folder, Path(written.path))


def calls(at: Prepared) -> dict[str, list[list[str]]]:
    """Return for each shape the commands, as typed, whose answers show it."""
    folder, essay = str(at.folder), str(at.folder / "essays" / "student-001.txt")
    return {
        "cj plan 1": [["plan", folder, "--essays", "--artefact", str(at.home / "plans")]],
        "cj explain 1": [["explain", folder]],
        "cj preflight 1": [["preflight", folder]],
        "cj dry-run 1": [["dry-run", folder]],
        "cj watch 1": [["watch", OPEN, "--timeout", "0"]],
        "cj status 1": [["status", OPEN], ["status"], ["status", BROKEN]],
        "cj inbox 1": [["inbox"]],
        "cj queue 1": [["queue"]],
        "cj essay 1": [["essay", SPRING, STUDENT, "--than", "pupil-04"]],
        "cj compare 1": [["compare", SPRING, AGAIN]],
        "cj sql 1": [["sql", "SELECT 1 AS one"]],
        "cj cost 1": [["cost"], ["cost", SPRING]],
        "cj verify 1": [["verify", str(at.artefact)]],
        "cj keys show 1": [["keys", "show"]],
        "cj assert 1": [["assert", SPRING]],
        "cj moderate 1": [["moderate", SPRING]],
        "cj rejudge 1": [["rejudge", SPRING]],
        "cj feedback 1": [["feedback", SPRING, STUDENT], ["feedback", SPRING]],
        "cj oversight 1": [["oversight", SPRING]],
        "cj people show 1": [["people", "show", SPRING]],
        "cj people agreement 1": [["people", "agreement", SPRING]],
        "cj verdicts list 1": [["verdicts", "list", SPRING]],
        "cj judge list 1": [["judge", "list"]],
        "cj judge show 1": [["judge", "show", "quality"]],
        "cj judge examine 1": [
            ["judge", "examine", "quality"],
            ["judge", "examine", "quality", "--pair", essay, essay],
        ],
        "cj judge compare 1": [
            [
                "judge",
                "compare",
                folder,
                "--judge",
                "quality",
                "--judge",
                "quality-messages",
                "--pairs",
                "1",
            ]
        ],
        "cj judge panel 1": [["judge", "panel", SPRING]],
        "cj trial list 1": [["trial", "list"]],
        "cj trial history 1": [["trial", "history", "lower5"]],
        "cj profile list 1": [["profile", "list"]],
        "cj profile explain 1": [["profile", "explain", "default"]],
        "cj store check 1": [["store", "check"]],
        "cj doctor 1": [["doctor"]],
        "cj reparse 1": [["reparse", SPRING]],
        "cj token list 1": [["token", "list"]],
        "cj metrics 1": [["metrics", SPRING]],
    }


def commands() -> Iterator[tuple[str, Command]]:
    """Yield every command of `cj` with its name, groups opened."""
    for held in (held for panel in PANELS.values() for held in panel):
        if isinstance(held, type(app)):
            for each in held.registered_commands:
                assert each.callback is not None
                yield f"{name_of(held)} {each.name}", each.callback
        else:
            yield name_of(held), held


def answers(at: Prepared, typed: Mapping[str, list[list[str]]]) -> dict[str, list[Any]]:
    """Return what the commands print with `--json`, each line read, by shape.

    Raises:
        AssertionError: If one prints no JSON, or its shape is another.
    """
    found: dict[str, list[Any]] = {}
    for shape, each in typed.items():
        for words in each:
            done = CliRunner().invoke(app, [*words, "--json"], env={"CJ_HOME": str(at.home)})
            lines = done.stdout.splitlines()
            assert lines, (words, done.exit_code, done.output, done.exception)
            read = [json.loads(line) for line in lines]
            assert {line["shape"] for line in read} == {shape}, (words, done.output)
            found.setdefault(shape, []).extend(read)
    return found


def shape_of(shape: str, documents: list[Any]) -> dict[str, set[str]]:
    """Return every path of some documents with the kinds of its values."""
    paths: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in _paths(shape, {k: v for k, v in document.items() if k != "shape"}, ""):
            paths.setdefault(path, set()).add(kind)
    return {path: kinds - {"null"} or {"null"} for path, kinds in paths.items()}


def _paths(shape: str, value: Any, at: str) -> Iterator[tuple[str, str]]:
    if (shape, at) in OF_ANY_KIND:
        yield at, "of the setting's own kind"
    elif (shape, at) in BY_NAME and value is not None:
        yield at, "by name"
    elif isinstance(value, dict):
        if at:
            yield at, "object"
        for name, each in value.items():
            yield from _paths(shape, each, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        yield at, "list"
        for each in value:
            yield from _paths(shape, each, f"{at}[]")
    else:
        kinds = {bool: "yes or no", int: "number", float: "number", str: "text"}
        yield at, "null" if value is None else kinds[type(value)]


def written(found: Mapping[str, list[Any]]) -> str:
    """Return the list of shapes as the page has it."""
    sections = []
    for shape in sorted(found):
        lines = [f"## {shape}", "", "```text"]
        for path, kinds in shape_of(shape, found[shape]).items():
            if path.endswith("[]") and kinds == {"object"}:
                continue
            words = "nothing here" if kinds == {"null"} else " or ".join(sorted(kinds))
            lines.append(f"{path:<44} {words}")
        sections.append("\n".join([*lines, "```", ""]))
    return "\n".join(sections)


def page() -> str:
    """Return the page as it is in the repository."""
    return PAGE.read_text("utf-8")


def listed(text: str) -> dict[str, dict[str, str]]:
    """Return the page's list: by shape, each path with its kind in words."""
    found: dict[str, dict[str, str]] = {}
    for shape, block in re.findall(r"^## (cj .+)\n\n```text\n((?:.*\n)*?)```", text, flags=re.M):
        lines = (line.split(maxsplit=1) for line in block.splitlines())
        found[shape] = dict(lines)
    return found


def _arrival() -> dict[str, Any]:
    return {
        "name": "spring-9.zip", "kind": "zip", "state": "rejected", "batch_id": "spring-9",
        "fingerprint": "f", "reason": "it holds no essay", "tries": 1, "first_seen_at": START,
        "last_seen_at": START, "changed_at": START, "next_try_at": START, "place": "inbox",
    }  # fmt: skip


def _breaker() -> dict[str, Any]:
    return {
        "lane": "l", "account": "a", "provider": "openai", "model": "m", "state": "open",
        "n_failures": 3, "n_trips": 1, "open_until": START, "last_error": "503",
        "changed_at": START,
    }  # fmt: skip


def _trial_run() -> dict[str, Any]:
    return {
        "batch_id": SPRING, "trial": "lower5", "fingerprint": "f", "definition": {"name": "lower5"},
        "due_at": START, "is_met": True, "figures": {"completed": 5}, "findings": [],
        "drift": None, "concluded_at": START + timedelta(hours=1),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        at = prepare(Path(folder))
        made = written(answers(at, calls(at)))
    PAGE.write_text(page().partition(BEGIN)[0] + BEGIN + "\n" + made, "utf-8")

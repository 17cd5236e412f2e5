"""`cj` as a whole: what its help shows, and what it costs to start."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cj_pipeline.cli import PANELS, app, name_of
from cj_pipeline.commands.terminal.exit_codes import EVERY_COMMAND, OF_COMMAND
from cj_pipeline.store.file_store import FileStore
from tests.support import ROOT
from tests.support.finished_batches import SPRING, fill
from tests.support.json_shapes import Prepared, calls, commands

ACTS = {
    "demo", "execute", "cancel", "report", "export", "regrade", "link", "release", "pages",
    "notify", "forget", "ui", "serve", "emulator", "keys create", "people link", "people revoke",
    "people export", "people forget", "verdicts import", "verdicts export", "verdicts withdraw",
    "trial run", "token create", "token revoke", "store backup", "store restore", "store moved",
    "store compact", "store archive", "store migrate", "store serve", "work",
}  # fmt: skip
"""Commands that do something rather than read; every other one has `--json`."""

OWN_WAY = {"sql": "cj sql 1", "watch": "cj watch 1"}
"""Readers whose `--json` is their own: rows of any query, and one object an event."""


def test_help_shows_every_command_under_what_it_is_for() -> None:
    """Thirty commands in one list are looked through by nobody; the first ones come first."""
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output

    headings = re.findall(r"^╭─ (.+?) ─+╮$", shown, flags=re.M)
    listed = re.findall(r"^│ ([a-z]+(?:-[a-z]+)*) ", shown, flags=re.M)
    assert headings == ["Options", *PANELS]
    assert listed == [name_of(held) for panel in PANELS.values() for held in panel]
    assert listed[:2] == ["demo", "plan"]


@pytest.mark.parametrize("where", [["-anna"], ["-anna", "--yes"], ["--yes", "--", "-anna"]])
def test_a_name_may_begin_with_a_dash(
    where: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An essay that was handed in as `-anna` can be named like any other."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
        db.execute("UPDATE essays SET given_id = '-anna' WHERE essay_id = 'pupil-03'")
    store.publish()

    shown = CliRunner().invoke(app, ["essay", SPRING, "-anna"])
    monkeypatch.setattr("cj_pipeline.commands.terminal.console.is_attended", lambda: True)
    done = CliRunner().invoke(app, ["forget", SPRING, *where], input="y\n")

    assert shown.exit_code == 0, shown.output
    assert done.exit_code == 0, done.output
    with store.read() as db:
        assert db.rows("SELECT 1 FROM essays WHERE essay_id = 'pupil-03'") == []


def test_a_mistyped_option_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--verfy` is told, and nothing is removed."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))

    done = CliRunner().invoke(app, ["forget", SPRING, "--verfy"])

    assert done.exit_code == 2
    assert "No such option" in done.output


def test_the_version_is_told() -> None:
    """The first question about any fault."""
    shown = CliRunner().invoke(app, ["--version"])

    assert (shown.exit_code, shown.output) == (0, f"cj {version('cj-pipeline')}\n")


def test_help_names_no_type_for_a_flag() -> None:
    """Nobody can write `--essays true`."""
    for command in (
        ["--help"],
        ["plan", "--help"],
        ["store", "--help"],
        ["trial", "run", "--help"],
    ):
        shown = CliRunner().invoke(app, command).output

        assert "bool" not in shown
        assert "--help" in shown


def test_a_demo_of_all_examples_has_no_one_name() -> None:
    """As every command that starts a batch, `cj demo` takes a name; for one example."""
    result = CliRunner().invoke(app, ["demo", "--batch-id", "mock-{date}"])

    assert result.exit_code == 2
    assert "name one example too" in " ".join(result.output.replace("│", " ").split())


def test_a_batchs_flags_are_those_of_every_look_at_it() -> None:
    """A command line that starts a batch shows its plan by one other word."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    flags = {
        name: {flag for each in commands[name].params for flag in each.opts if flag[:2] == "--"}
        for name in ("plan", "dry-run", "preflight", "explain", "execute")
    }
    of_running = {"--await-completion", "--completion-timeout", "--resume", "--log-file"}
    of_a_batch = flags["execute"] - of_running - {"--help"}

    assert {"--batch-id", "--set", "--profile", "--max-comparisons", "--anyway"} <= of_a_batch
    for name in ("plan", "dry-run", "preflight"):
        assert of_a_batch <= flags[name], name
    assert of_a_batch - {"--batch-id", "--again"} <= flags["explain"]


def test_every_command_that_reads_answers_in_json() -> None:
    """A new command takes `--json`, or is named here as one that acts."""
    names = {name for name, _ in commands()}
    shapes = OWN_WAY | {name: each.shape for name, each in commands() if hasattr(each, "shape")}

    assert names - set(shapes) == ACTS
    assert set(shapes.values()) == set(calls(Prepared(Path(), Path(), Path())))
    for name, shape in shapes.items():
        assert re.fullmatch(rf"cj {name} \d+", shape)


def _parameters() -> Iterator[tuple[str, str, Any]]:
    """Yield every argument and option of every command: the command, its name, itself."""
    for command, function in commands():
        for name, taken in inspect.signature(function, eval_str=True).parameters.items():
            yield command, name, taken.annotation


NAMES_A_BATCH = {"batch", "batches", "to"}
NAMES_AN_ESSAY = {"essay", "essay_id", "than", "person", "accept", "exclude"}
OF_ANOTHER_KIND = {
    ("judge examine", "batch"), ("token create", "batches"), ("demo", "batches"),
    ("people revoke", "person"),
    ("people export", "person"),
    ("people forget", "person"),
}  # fmt: skip
"""A folder; patterns of names; a number; people who judge."""


def test_names_of_batches_essays_and_judges_complete() -> None:
    """Nobody should have to type `autumn-9b-second-try`."""
    without = {
        (command, name)
        for command, name, taken in _parameters()
        if name in NAMES_A_BATCH | NAMES_AN_ESSAY
        or (name in {"name", "judge"} and command.startswith("judge "))
        if taken.__metadata__[0].autocompletion is None
    }

    assert without == OF_ANOTHER_KIND


def test_a_shell_is_offered_names_and_no_words_that_it_would_obey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An essay handed in as a command is offered by its id."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
        db.execute("UPDATE essays SET given_id = '$(rm -r .)' WHERE essay_id = 'pupil-03'")
        db.execute("UPDATE essays SET given_id = 'Ägidius' WHERE essay_id = 'pupil-04'")

    def offered(typed: str) -> list[str]:
        shell = {"COMP_WORDS": f"cj {typed}", "COMP_CWORD": str(len(typed.split(" ")))}
        done = CliRunner().invoke(
            app, [], prog_name="cj", env=shell | {"_CJ_COMPLETE": "complete_bash"}
        )
        return done.stdout.split()

    assert offered("status sp") == [SPRING]
    assert {"pupil-03", "Ägidius"} <= set(offered(f"essay {SPRING} "))
    assert "quality-gemini" in offered("judge show quality-")
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "nowhere"))
    assert offered("status sp") == []
    assert not (tmp_path / "nowhere").exists()


def _exits() -> Iterator[tuple[str, str, int]]:
    """Yield every number that a function of a command's module ends `cj` with."""
    for path in sorted((ROOT / "cj_pipeline" / "commands").glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Exit":
                    for given in node.args:
                        if isinstance(given, ast.Constant) and isinstance(given.value, int):
                            yield path.stem, function.name, given.value


def test_every_exit_code_is_listed() -> None:
    """In help and docs, for scripts that go by it."""
    from cj_pipeline.commands.watch import EXIT_CODES, INTERRUPTED, REJECTED, TIMED_OUT

    everywhere = set(EVERY_COMMAND) | {code for codes in OF_COMMAND.values() for code in codes}
    by_name = {name.replace("-", "_"): name for name, _ in commands()}
    for module, function, code in _exits():
        command = by_name.get(f"{module} {function}", by_name.get(function.strip("_")))
        listed = EVERY_COMMAND | OF_COMMAND.get(command, {}) if command else everywhere
        assert code in listed, (module, function, code)
    ends = {*EXIT_CODES.values(), REJECTED, TIMED_OUT, INTERRUPTED}
    assert ends == set(OF_COMMAND["watch"])
    assert set(OF_COMMAND) <= {name for name, _ in commands()}


def test_help_lists_exit_codes() -> None:
    """Those of every command once; those of its own with the command."""
    whole = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).output
    of_watch = CliRunner().invoke(app, ["watch", "--help"], env={"COLUMNS": "300"}).output

    assert "Exit codes: 0 done; 1 not done" in whole
    assert "10 partial; 11 failure" in of_watch


def test_only_one_function_asks_a_person() -> None:
    """It refuses where there is no terminal; another one would wait for ever."""
    asking = re.compile(r"typer\.(confirm|prompt)|\binput\(|getpass\.getpass|Prompt\.ask")
    found = [
        path.name
        for path in (ROOT / "cj_pipeline").rglob("*.py")
        if asking.search(path.read_text("utf-8"))
    ]

    assert found == ["console.py"]
    watch = (ROOT / "cj_pipeline" / "commands" / "watch.py").read_text("utf-8")
    assert watch.index("if not is_attended()") < watch.index("Confirm.ask(")

"""`cj` as a whole: what its help shows, and what it costs to start."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cj_pipeline.cli import PANELS, app, name_of
from cj_pipeline.store.file_store import FileStore
from tests.support.finished_batches import SPRING, fill


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

"""No text from outside is obeyed by a terminal, whichever way it gets there."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.live import Live
from rich.markup import escape
from rich.text import Text
from typer.testing import CliRunner

import cj_pipeline.commands
from cj_pipeline.cli import app
from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.console import InertConsole, with_plain_errors
from cj_pipeline.store.file_store import FileStore

HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\re\u202ef\u200bg\U000e0041h"
"""A title set, a screen cleared, colours by a C1 control, a line overwritten, a hidden letter."""

SPELLED = ("[U+001B]]0;owned", "[U+001B][2J", "[U+009B]31m", "[U+202E]", "[U+200B]", "[U+E0041]")
"""Rich itself takes some controls out, so what is left of bell and carriage return varies."""


def console(*, width: int = 300) -> tuple[InertConsole, io.StringIO]:
    """Return a console that believes in a terminal, and what it writes."""
    out = io.StringIO()
    return InertConsole(file=out, force_terminal=True, width=width, color_system=None), out


@pytest.mark.parametrize(
    "shown",
    [
        escape(HOSTILE),
        Text(HOSTILE),
        tables.table(HOSTILE, (HOSTILE,), [(HOSTILE,)]),
        tables.problems(HOSTILE),
    ],
    ids=["markup", "text", "table", "panel"],
)
def test_what_is_printed_is_spelled_out(shown: object) -> None:
    """A student names the file, a provider writes the message, a teacher reads the screen."""
    to, out = console()

    to.print(shown)

    assert "\x1b" not in out.getvalue()
    assert not set("\x07\x9b\r\u202e\u200b\U000e0041") & set(out.getvalue())
    assert all(spelled in out.getvalue() for spelled in SPELLED)


def test_a_live_screen_obeys_its_own_codes_only() -> None:
    """`cj watch` moves the cursor, and a batch's name must not."""
    to, out = console()

    with Live(Text(HOSTILE), console=to, auto_refresh=False) as live:
        live.refresh()

    assert all(spelled in out.getvalue() for spelled in SPELLED)
    assert "\x1b]0" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


def test_a_traceback_is_inert_too(capfd: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw may quote anything."""

    def fails() -> None:
        raise ValueError(HOSTILE)

    with pytest.raises(Exception, match="1"):
        with_plain_errors(fails)()

    said = capfd.readouterr().err
    assert "ValueError" in said
    assert "\x1b]" not in said
    assert "\x9b" not in said


def test_rows_of_cj_sql_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query reaches replies and essays as they came."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))
    FileStore(tmp_path).publish()

    row = CliRunner().invoke(app, ["sql", "SELECT chr(27) || ']0;owned' || chr(7) AS text"])
    refused = CliRunner().invoke(app, ["sql", "SELECT \x1b]0;owned\x07"])

    assert "[U+001B]]0;owned[U+0007]" in row.output
    assert refused.exit_code == 1
    assert "\x1b]" not in row.output + refused.output


@pytest.mark.parametrize(
    "typed",
    [
        ["plan", HOSTILE],
        ["status", HOSTILE],
        [HOSTILE],
        ["store", HOSTILE],
        ["profile", "explain", "--set", HOSTILE],
        ["store", "restore", HOSTILE],
        ["forget", HOSTILE],
    ],
    ids=lambda typed: typed[0] if len(typed) > 1 else "command",
)
def test_what_was_typed_comes_back_inert(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cj plan *` types the names of folders that somebody else made."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path))
    FileStore(tmp_path).publish()

    done = CliRunner().invoke(app, typed)

    assert done.exit_code != 0
    assert "\x1b]0" not in done.output
    assert not set("\x07\x9b\u202e\u200b\U000e0041") & set(done.output)


def test_a_hostile_file_name_in_a_batch_folder_is_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All problems of a folder are listed, with the names of its files."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    essays = tmp_path / "batch" / "essays"
    essays.mkdir(parents=True)
    (essays / "\x1b]0;owned\x07.docx").write_text("x")

    done = CliRunner().invoke(app, ["plan", str(tmp_path / "batch")])

    assert done.exit_code == 1
    assert "\x1b]0" not in done.output
    assert r"essays/\x1b]0;owned\x07.docx" in done.output


def test_no_command_writes_past_the_console() -> None:
    """One place is guarded because it is the only one."""
    folder = Path(cj_pipeline.commands.__file__).parent
    past = [
        f"{file.name}:{node.lineno} {name}"
        for file in sorted(folder.glob("*.py"))
        if file.name != "console.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func))
        in {"print", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt", "Console"}
        | {"sys.stdout.write", "sys.stderr.write", "rich.print"}
    ]

    assert past == []

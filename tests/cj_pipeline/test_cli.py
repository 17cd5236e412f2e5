"""`cj` as a whole: what its help shows, and what it costs to start."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from cj_pipeline.cli import PANELS, app, name_of


def test_help_shows_every_command_under_what_it_is_for() -> None:
    """Thirty commands in one list are looked through by nobody; the first ones come first."""
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output

    headings = re.findall(r"^╭─ (.+?) ─+╮$", shown, flags=re.M)
    listed = re.findall(r"^│ ([a-z]+(?:-[a-z]+)*) ", shown, flags=re.M)
    assert headings == ["Options", *PANELS]
    assert listed == [name_of(held) for panel in PANELS.values() for held in panel]
    assert listed[:2] == ["demo", "plan"]


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

"""`cj` as a whole: what its help shows, and what it costs to start."""

from __future__ import annotations

import re
import subprocess
import sys

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


def test_starting_waits_for_nothing_that_only_some_commands_need() -> None:
    """`cj --help` and completion are to answer at once; numpy alone takes longer than all of it."""
    heavy = ("numpy", "duckdb", "pydantic", "dagster", "fastapi", "matplotlib", "structlog")
    code = f"import cj_pipeline.cli, sys; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"

"""Loading stays light: what is imported where, and that what is listed for later exists.

Each in a process of its own, since this one has imported all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cj_pipeline.steps.preload import GRADING, PUBLISHING
from resources.preload import NEEDED
from tests.support import ROOT

_PLOTS_AND_TABLES = (
    "scipy",
    "pandas",
    "polars",
    "matplotlib",
    "jinja2",
    "jsonschema",
    "xlsxwriter",
)
_SDKS = ("openai", "anthropic", "google.genai")
_STORE_AND_NUMBERS = ("numpy", "duckdb", "pyarrow")


def _loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Return which of these packages a process has imported once it has run the code."""
    code += f"\nimport sys; print(*sorted(set({names!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split() if names else []


def test_settings_load_pydantic_and_nothing_heavier() -> None:
    """They are read by whoever writes a batch, with no scale and no store about."""
    heavy = ("pydantic", *_STORE_AND_NUMBERS, *_PLOTS_AND_TABLES, *_SDKS, "dagster", "choix")

    assert _loaded("import cj_pipeline.intake.settings", heavy) == ["pydantic"]


def test_help_loads_nothing_that_only_some_commands_need() -> None:
    """`cj --help` and completion are to answer at once; numpy alone takes longer than all of it."""
    help_shown = """
import cj_pipeline.cli
try:
    cj_pipeline.cli.app(["--help"])
except SystemExit:
    pass
"""
    heavy = (*_STORE_AND_NUMBERS, "pydantic", "dagster", "fastapi", "structlog", "matplotlib")

    assert _loaded(help_shown, heavy) == []


def test_a_status_loads_the_store_and_no_numbers(tmp_path: Path) -> None:
    """It is what people ask for again and again; prices, pairs and scales take most of a second."""
    status_shown = f"""
import os
os.environ["CJ_HOME"] = {str(tmp_path)!r}
import cj_pipeline.cli
try:
    cj_pipeline.cli.app(["status"])
except SystemExit:
    pass
"""
    heavy = (*_STORE_AND_NUMBERS, *_PLOTS_AND_TABLES, *_SDKS, "dagster", "choix")
    _loaded(status_shown, ())  # which makes the store

    assert _loaded(status_shown, heavy) == ["duckdb"]


def test_definitions_load_no_plots_no_tables_and_no_sdk() -> None:
    """Each run is a process of its own; what it imports is paid for again and again."""
    heavy = (*_PLOTS_AND_TABLES, *_SDKS, "choix")

    assert _loaded("import cj_pipeline.definitions", heavy) == []


@pytest.mark.parametrize("name", sorted({*GRADING, *PUBLISHING, *NEEDED}))
def test_what_is_imported_ahead_exists(name: str) -> None:
    """A name that went elsewhere would be skipped in silence, and waited for later."""
    assert importlib.import_module(name).__name__ == name

"""What Dagster does not call public is used in one place, and in versions it was tried with."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

from packaging.requirements import Requirement

from tests.support import ROOT

PRIVATE = re.compile(r"^\s*(?:from|import) dagster(?:_\w+)?\._", re.MULTILINE)


def test_private_modules_are_imported_in_one_place() -> None:
    """So that one file says what a new release may break."""
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("assets", "resources", "cj_pipeline", "deploy", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if PRIVATE.search(path.read_text())
    }

    assert found == {"resources/dagster_internals.py"}


def test_dagster_is_bounded_to_the_minor_version_that_is_locked() -> None:
    """The next one is tried by `make newest` first, which installs it all the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {
        requirement.name: requirement.specifier
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name.startswith("dagster")
    }
    major, minor = version("dagster").split(".")[:2]

    assert set(bounds) == {"dagster", "dagster-webserver"}
    for bound in bounds.values():
        assert bound.contains(version("dagster"))
        assert not bound.contains(f"{major}.{int(minor) + 1}.0")
    newest = (ROOT / "Makefile").read_text().split("\nnewest:")[1].split("\n\n")[0]
    assert "install --quiet --upgrade dagster dagster-webserver" in newest

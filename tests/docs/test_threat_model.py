"""Every line of the threat model's list of attacks is held by a test there is."""

from __future__ import annotations

import ast
import re

from tests.support import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text("utf-8")


def test_every_attack_names_a_test_that_exists() -> None:
    """A promise whose test was renamed or removed would go on being read."""
    attacks = PAGE.partition("## Attacks")[2].partition("\n## ")[0]
    lines = [line for line in attacks.splitlines() if line.startswith("| ")][1:]
    named = [re.search(r"`(tests/[\w/]+\.py)::(test_\w+)` \|$", line) for line in lines]

    assert len(lines) >= 20
    for line, found in zip(lines, named, strict=True):
        assert found is not None, line
        file, test = found.groups()
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{file} has no {test}"


def test_what_is_not_defended_is_said() -> None:
    """A page that lists only strengths is an advertisement."""
    assert PAGE.partition("## What is not defended")[2].count("\n- **") >= 5

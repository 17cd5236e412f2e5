"""What people read uses the words of the glossary: help, messages, templates, descriptions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

PRIVATE = {
    r"nobody|whoever|somebody": "the caller, another process, the operator, the reader",
    r"mend(s|ed|ing)?": "fix, repair",
    r"anew": "re-: recompute, rewrite, regrade",
    r"(hand|hands|handed|handing) (it |them |this one )?in\b": "submit",
    r"(take|takes|taken|took) (a batch )?in\b(?! \d)": "ingest, start",
    r"(come|comes|came|bring|brings|brought|coming) home": "completed, collected",
    r"asked (again|anew|of|for so)": "retried, requested",
    r"at the most": "at most",
    r"nearest known": "did you mean ...?",
    r"is none of its": "is not one of its",
    r"told to stop": "asked to stop",
    r"so many": "N",
    r"(?<=>)(home|asked)(?=<)": "Completed, Requested",
    r"never an obligation": "it may stop earlier",
    r"pace unknown|left unknown": "not known yet",
    r"once more|all the same": "again, nevertheless",
}
"""Words that a stranger has to guess, and what to write in their place."""

NOT_FOR_PEOPLE = {
    "cj_pipeline/trials/definitions.py",  # essays that a trial makes up
    "cj_pipeline/emulator/judges.py",  # verdicts in a simulated judge's words
}


def read_by_people() -> Iterator[tuple[str, int, str]]:
    """Yield every text of the source that reaches a person: file, line, text."""
    for folder in ("cj_pipeline", "assets", "resources"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in {".html", ".js"}:
                for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                    yield name, number, re.sub(r"\{#.*?#\}|//.*", "", line)
            elif path.suffix == ".py" and name not in NOT_FOR_PEOPLE:
                yield from _texts(path, name)


def _texts(path: Path, name: str) -> Iterator[tuple[str, int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            silent.add(id(node.value))
    for node in ast.walk(tree):
        # Help of commands and descriptions of assets are docstrings that people read.
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            shown = name.startswith("cj_pipeline/commands/") or node.decorator_list
            doc = ast.get_docstring(node) if shown else None
            yield name, node.lineno, doc or ""
        elif isinstance(node, ast.Constant) and id(node) not in silent:
            text = node.value if isinstance(node.value, str) else ""
            yield name, node.lineno, text if " " in text else ""  # one word is a stored one


@pytest.mark.parametrize("private", PRIVATE)
def test_people_read_the_fields_words(private: str) -> None:
    """One list of words for help, errors, reports, pages and Dagster's descriptions."""
    pattern = re.compile(rf"\b(?:{private})\b", re.IGNORECASE)

    found = [
        f"{name}:{line}: {text.strip()[:100]}"
        for name, line, text in read_by_people()
        if pattern.search(text) and not re.match(r"\s*(SELECT|INSERT|UPDATE|WITH|PREPARE)\b", text)
    ]

    assert found == [], f"say instead: {PRIVATE[private]}"


def test_the_search_sees_help_messages_templates_and_descriptions() -> None:
    """It would pass on anything if it looked at nothing."""
    seen = [(name, text) for name, _, text in read_by_people()]

    assert len(seen) > 2_000
    for needed in ("cj_pipeline/commands/batches.py", "assets/automation/jobs.py"):
        assert any(name == needed for name, _ in seen)
    assert any("Start a batch" in text for _, text in seen)
    assert any(name.endswith("report.html") for name, _ in seen)

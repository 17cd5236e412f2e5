"""`--json` on every command that reads: one mechanism, and shapes that are written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cj_pipeline.commands.terminal.answers import answer, plain, reads
from cj_pipeline.commands.terminal.console import console, write
from cj_pipeline.errors import SettingsError
from cj_pipeline.stopping.continuation import EndReason
from tests.support import json_shapes
from tests.support.json_shapes import listed, page, shape_of


@pytest.mark.slow
def test_the_page_lists_every_field_of_every_shape(tmp_path: Path) -> None:
    """Who reads them by program learns from it what there is, and what is gone since."""
    documented = listed(page())
    at = json_shapes.prepare(tmp_path)

    made = listed(json_shapes.written(json_shapes.answers(at, json_shapes.calls(at))))

    assert {shape: set(paths) for shape, paths in documented.items()} == {
        shape: set(paths) for shape, paths in made.items()
    }, "`python -m tests.support.json_shapes` rewrites it; what breaks readers counts a version up"
    assert documented == made


@dataclass(frozen=True)
class _Thing:
    when: datetime
    how_long: timedelta
    share: float


def test_values_are_written_as_json_has_them() -> None:
    """What has no form is refused rather than written as Python happens to print it."""
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    values = [_Thing(noon, timedelta(minutes=1), float("nan")), EndReason.PRECISE, Decimal("0.5")]

    assert plain([*values, np.float64(2.5), np.array([1, 2]), {1: Path("a/b")}, {"b", "a"}]) == [
        {"when": "2026-03-02T12:00:00+00:00", "how_long": 60.0, "share": None},
        "precise",
        0.5,
        2.5,
        [1, 2],
        {"1": "a/b"},
        ["a", "b"],
    ]
    with pytest.raises(TypeError, match="object has no form"):
        plain(object())


def _run(*words: str) -> tuple[int, str]:
    @reads("cj probe 1")
    def probe(fails: bool = False) -> None:
        console.print("For people.")
        write("for people too\n")
        answer(text="a\u202eb \x1b[31m ä", n=1)
        answer(n=2)
        if fails:
            raise typer.Exit(3)

    app = typer.Typer()
    app.command()(probe)
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.stdout


def test_only_the_answer_is_printed_and_a_terminal_obeys_none_of_it() -> None:
    """And reading it gives the text back as it was."""
    code, printed = _run("--json")

    assert code == 0
    assert json.loads(printed) == {"shape": "cj probe 1", "text": "a\u202eb \x1b[31m ä", "n": 2}
    assert printed.count("\n") == 1
    assert "\u202e" not in printed
    assert "\x1b" not in printed
    assert "ä" in printed
    assert _run() == (0, "For people.\nfor people too\n")


def test_an_exit_code_comes_with_the_answer() -> None:
    """A check that fails is what a script wants to read about."""
    code, printed = _run("--fails", "--json")

    assert code == 3
    assert json.loads(printed)["n"] == 2
    assert not console.quiet


def test_nothing_is_asked_without_a_terminal() -> None:
    """A script is told how to say yes; it is never left waiting."""
    from cj_pipeline.commands.terminal.console import confirm

    with pytest.raises(SettingsError, match=r"Go on\? --yes says yes"):
        confirm("Go on?")


def test_shapes_tell_kinds_apart() -> None:
    """What is null in one document and a number in another is a number."""
    found = shape_of("cj probe 1", [{"shape": "x", "a": None}, {"shape": "x", "a": [{"b": 1.5}]}])

    assert found == {"a": {"list"}, "a[]": {"object"}, "a[].b": {"number"}}

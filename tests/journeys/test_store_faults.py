"""The page that tells what a fault comes to in the store says what really comes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.store_faults import (
    COMMANDS,
    KILLED,
    Came,
    everything,
    make_home,
    n_comparisons,
    section,
    steps_of,
    try_it,
)

PAGE = ROOT / "docs" / "store-faults.md"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with finished batches."""
    # Its own folder among the temporary files would be gone before Python removes it.
    vars(multiprocessing.current_process())["_config"]["tempdir"] = str(
        tmp_path_factory.mktemp("mp")
    )
    home = tmp_path_factory.mktemp("template") / "home"
    make_home(home)
    return home


def _assert_nothing_is_lost(came: Came, template: Path) -> None:
    before = n_comparisons(template)
    forgotten, marked = came.command == "cj forget", came.command.startswith("cj forget")
    assert came.rows_before == before, came
    assert came.rows_after == before or forgotten, came
    # A backup that came to be is not written over: another one needs another name.
    is_there = came.command == "cj store backup" and came.step.endswith("flush the folder")
    assert came.again_code == (1 if is_there else 0), came
    assert came.rows_again == before or forgotten, came
    assert came.n_marked == 0 or not marked, came
    assert came.n_left == 0, came
    assert came.exit_code == (-9 if came.fault == KILLED else 1), came


@pytest.mark.parametrize("step", ["write", "rename"])
@pytest.mark.parametrize("command", ["cj store compact", "cj forget", "cj forget, one essay"])
def test_a_killed_command_loses_nothing(
    template: Path, tmp_path: Path, command: str, step: str
) -> None:
    """The three that rewrite the whole store, at the two steps that matter most."""
    steps = steps_of(template, command, tmp_path / "steps")

    came = try_it(template, command, steps, steps.index(step), KILLED, tmp_path / "case")

    _assert_nothing_is_lost(came, template)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_says_what_comes(command: str, template: Path, tmp_path: Path) -> None:
    """Made anew it is the same, word for word; and no line of it lost a row."""
    came = list(everything(template, tmp_path, command))

    for each in came:
        _assert_nothing_is_lost(each, template)
    assert section(command, came) in PAGE.read_text()

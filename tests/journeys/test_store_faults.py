"""Store commands that are killed at the steps that matter most lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store_faults import (
    KILLED,
    Came,
    make_home,
    n_comparisons,
    steps_of,
    try_it,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with finished batches."""
    home = tmp_path_factory.mktemp("template") / "home"
    make_home(home)
    return home


def _assert_nothing_is_lost(came: Came, template: Path) -> None:
    before = n_comparisons(template)
    forgotten = came.command == "cj forget"
    assert came.rows_before == before, came
    assert came.rows_after == before or forgotten, came
    assert came.again_code == 0, came
    assert came.rows_again == before or forgotten, came
    assert came.n_marked == 0 or not forgotten, came
    assert came.n_left == 0, came
    assert came.exit_code == (-9 if came.fault == KILLED else 1), came


@pytest.mark.parametrize("step", ["write", "rename"])
@pytest.mark.parametrize("command", ["cj store compact", "cj forget"])
def test_a_killed_command_loses_nothing(
    template: Path, tmp_path: Path, command: str, step: str
) -> None:
    """The two that rewrite the whole store, at the two steps that matter most."""
    steps = steps_of(template, command, tmp_path / "steps")

    came = try_it(template, command, steps, steps.index(step), KILLED, tmp_path / "case")

    _assert_nothing_is_lost(came, template)

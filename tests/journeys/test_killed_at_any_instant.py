"""Store commands are killed when nobody expects it: nothing is lost and nothing is left."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from pathlib import Path

import pytest

from tests.support.finished_batches import SPRING
from tests.support.nightly import many
from tests.support.store_faults import left_behind, make_home, n_marked
from tests.support.store_kills import kill_within, seconds_of

COMMANDS: dict[str, tuple[str, ...]] = {
    "compact": ("store", "compact"),
    "backup": ("store", "backup", "{home}/../kept.duckdb"),
    "restore": ("store", "restore", "{home}/../given.duckdb"),
    "archive": ("store", "archive", "--older-than-days", "0"),
    "forget a batch": ("forget", SPRING, "--yes"),
    "forget an essay": ("forget", SPRING, "pupil-03", "--yes"),
    "migrate": ("store", "migrate"),
    "check": ("store", "check", "--fix"),
}

N_KILLS = many(1, 125)
"""Of each command: a thousand in all at night."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with finished batches, one text of which is marked."""
    vars(multiprocessing.current_process())["_config"]["tempdir"] = str(
        tmp_path_factory.mktemp("mp")
    )
    home = tmp_path_factory.mktemp("template") / "home"
    make_home(home)
    return home


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_any_instant_loses_nothing(template: Path, tmp_path: Path, name: str) -> None:
    """The store opens, the check finds nothing wrong, and the same command comes to its end."""
    rng = random.Random(name)  # noqa: S311 - instants, not secrets
    longest = seconds_of(*_home(template, tmp_path / "timed", name))
    shutil.rmtree(tmp_path / "timed")

    n_killed = 0
    for n in range(N_KILLS):
        folder = tmp_path / str(n)
        home, arguments = _home(template, folder, name)
        came = kill_within(home, arguments, rng.uniform(0, longest))

        n_killed += came.was_killed
        forgets_all = name == "forget a batch"
        # A backup that came to be is not written over, and what the check has finished forgetting
        # is not there to be forgotten.
        may_refuse = name == "backup" or name.startswith("forget")
        assert came.rows_after == came.rows_before or forgets_all, came
        assert came.rows_again == came.rows_before or forgets_all, came
        assert came.check_code == 0, came
        assert came.again_code in ({0, 1} if may_refuse else {0}), came
        assert left_behind(folder) == [], came
        if name.startswith("forget"):
            assert n_marked(home) == 0, came
        shutil.rmtree(folder)
    print(f"{name}: {n_killed} of {N_KILLS} were killed within {longest:.2f} s")


def _home(template: Path, folder: Path, name: str) -> tuple[Path, list[str]]:
    """Return a copy of the home, and the command as it is typed there."""
    folder.mkdir(mode=0o700)
    home = folder / "home"
    shutil.copytree(template, home)
    shutil.copy(template.parent / "given.duckdb", folder / "given.duckdb")
    return home, [word.replace("{home}", str(home)) for word in COMMANDS[name]]

"""A home is its owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cj_pipeline.storage.private_files import (
    close_to_others,
    is_open_to_others,
    make_home,
    open_to_others,
)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """As on most machines, whatever ran before."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_made_for_its_owner_and_so_is_what_comes_into_it(tmp_path: Path) -> None:
    """Whoever writes there next need not think of it."""
    home = make_home(tmp_path / "home")
    (home / "folder").mkdir()
    (home / "folder" / "essay.txt").write_text("private")

    assert _mode(home) == 0o700
    assert list(open_to_others(home)) == []


def test_an_empty_folder_becomes_a_home(tmp_path: Path) -> None:
    """A folder that was made for it beforehand has the usual rights."""
    (tmp_path / "home").mkdir()

    make_home(tmp_path / "home")

    assert _mode(tmp_path / "home") == 0o700


def test_a_folder_with_something_in_it_is_left_as_it_is_and_named(tmp_path: Path) -> None:
    """It may be a folder that others need for other things."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "theirs").write_text("")

    home = make_home(tmp_path / "home")

    assert _mode(home) == 0o755
    assert is_open_to_others(home)
    assert list(open_to_others(home)) == [home, home / "theirs"]


def test_a_home_can_be_closed(tmp_path: Path) -> None:
    """Links lead elsewhere, and what lies there is not ours to change."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "batches").mkdir(parents=True)
    (home / "batches" / "report.html").write_text("private")
    elsewhere.write_text("theirs")
    (home / "link").symlink_to(elsewhere)

    changed = close_to_others(home)

    assert changed == [home, home / "batches", home / "batches" / "report.html"]
    assert list(open_to_others(home)) == []
    assert _mode(elsewhere) == 0o644


def test_the_group_keeps_the_rights_that_were_named(tmp_path: Path) -> None:
    """Analysts with accounts of their own may look into one folder."""
    home = tmp_path / "home"
    (home / "published").mkdir(parents=True)

    close_to_others(home, lambda path: 0o050 if path.name == "published" else 0o010)

    assert (_mode(home), _mode(home / "published")) == (0o710, 0o750)

"""Each requirement is shown by its command, and the page says what really came out."""

from __future__ import annotations

import pytest

from tests.support import ROOT
from tests.support.requirements import SECTIONS, World, table

PAGE = ROOT / "docs" / "requirements.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A home in which each command is run once."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_what_came_out(section: str, world: World) -> None:
    """Made again it is the same, word for word."""
    assert table(section, world) in PAGE.read_text("utf-8")

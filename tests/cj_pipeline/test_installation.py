"""What an operator lays down for a whole installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.installation import Installation, read_installation


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n"])
def test_without_a_word_everything_is_private_and_kept(tmp_path: Path, text: str | None) -> None:
    """The file may be left out."""
    if text is not None:
        (tmp_path / "installation.yaml").write_text(text)

    assert read_installation(tmp_path) == Installation(published="owner", retention_days=None)


def test_what_it_says_is_taken(tmp_path: Path) -> None:
    """Both keys."""
    (tmp_path / "installation.yaml").write_text("published: group\nretention_days: 400\n")

    assert read_installation(tmp_path) == Installation(published="group", retention_days=400)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("publised: group", "publised is no key"),
        ("published: everybody", "published is one of"),
        ("retention_days: soon", "retention_days is a number"),
        ("retention_days: -1", "retention_days is a number"),
        ("retention_days: true", "retention_days is a number"),
        ("[1, 2]", "no mapping"),
        ("{", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """A mistyped retention must not look like one."""
    (tmp_path / "installation.yaml").write_text(text)

    with pytest.raises(SettingsError, match=told):
        read_installation(tmp_path)

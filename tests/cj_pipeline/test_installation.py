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
        ("batch_judges: perhaps", "batch_judges is allow or refuse"),
        ("allowed_hosts: everywhere", "allowed_hosts is a list"),
        ("allowed_hosts: [https://a.example/path]", "allowed_hosts is a list"),
        ("allowed_key_variables: LAB_KEY", "allowed_key_variables is a list"),
        ("allowed_key_variables: {LAB_KEY: [lab.example]}", "allowed_key_variables is a list"),
        ("[1, 2]", "no mapping"),
        ("{", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """A mistyped retention must not look like one."""
    (tmp_path / "installation.yaml").write_text(text)

    with pytest.raises(SettingsError, match=told):
        read_installation(tmp_path)


def test_where_judges_of_batches_may_be_reached_is_laid_down_here(tmp_path: Path) -> None:
    """Hosts, and keys with or without the addresses they are for; the environment wins."""
    (tmp_path / "installation.yaml").write_text(
        "batch_judges: refuse\nallowed_hosts: ['*.school.example']\n"
        "allowed_key_variables: {LAB_KEY: [https://lab.school.example]}\n"
    )

    said = read_installation(tmp_path).of_batches
    assert (said.mode, said.hosts) == ("refuse", ("*.school.example",))
    assert said.keys == {"LAB_KEY": ("https://lab.school.example",)}
    assert read_installation(tmp_path, {"CJ_BATCH_JUDGES": "allow"}).of_batches.mode == "allow"
    with pytest.raises(SettingsError, match="CJ_BATCH_JUDGES is allow or refuse"):
        read_installation(tmp_path, {"CJ_BATCH_JUDGES": "yes"})
    (tmp_path / "installation.yaml").write_text("allowed_key_variables: [LAB_KEY]\n")
    assert read_installation(tmp_path).of_batches.keys == {"LAB_KEY": ()}

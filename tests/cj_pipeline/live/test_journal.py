"""Replies survive the process that received them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.live.journal import Journal, folder_of


def journal(home: Path, key: str | None = None) -> Journal:
    """Return the journal of one job, reopened."""
    return Journal(home, "spring-9", "abc", key)


@pytest.mark.parametrize("key", [None, "secret"])
def test_what_was_kept_is_there_for_the_next_process(tmp_path: Path, key: str | None) -> None:
    """In the order it came, whatever is in it."""
    rows = [{"line": 1, "body": 'a\nb "ö" \ud800'}, {"line": 2, "body": "\x00\u2028"}]
    first = journal(tmp_path, key)
    for row in rows:
        first.append(row)

    assert journal(tmp_path, key).rows() == rows


def test_a_line_cut_short_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    """Neither those before it nor what the next process adds."""
    first = journal(tmp_path)
    first.append({"line": 1})
    first.append({"line": 2})
    path = first.path
    path.write_bytes(path.read_bytes()[:-5])

    second = journal(tmp_path)
    second.append({"line": 3})

    assert journal(tmp_path).rows() == [{"line": 1}, {"line": 3}]


def test_an_encrypted_store_has_an_encrypted_journal(tmp_path: Path) -> None:
    """Replies quote essays; the key that protects the store protects them too."""
    kept = journal(tmp_path, "secret")
    kept.append({"body": "what the student wrote"})

    assert b"student" not in kept.path.read_bytes()
    assert journal(tmp_path, "another").rows() == []


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Like the store itself."""
    kept = journal(tmp_path)
    kept.append({"line": 1})

    assert kept.path.stat().st_mode & 0o077 == 0
    assert kept.path.parent.stat().st_mode & 0o077 == 0


def test_removing_it_leaves_nothing(tmp_path: Path) -> None:
    """Not even the batch's folder, once the last is gone."""
    kept = journal(tmp_path)
    kept.append({"line": 1})

    kept.remove()

    assert not folder_of(tmp_path, "spring-9").exists()
    assert journal(tmp_path).rows() == []


def test_a_call_that_left_and_was_not_heard_of_again_is_lost(tmp_path: Path) -> None:
    """A reply, a refusal, or being counted already leaves nothing in doubt."""
    kept = journal(tmp_path)
    for custom_id in ("answered", "refused", "counted", "lost"):
        kept.sending(custom_id, 1)
    kept.sending("refused", 2)
    kept.append({"kind": "matched", "custom_id": "answered", "n_tries": 1})
    kept.resolved("refused", 1)
    kept.resolved("counted", 1)
    kept.close()

    assert journal(tmp_path).lost() == ["lost", "refused"]
    assert [row["custom_id"] for row in journal(tmp_path).replies()] == ["answered"]

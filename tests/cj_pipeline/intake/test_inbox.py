"""The inbox: each item on its own, nothing lost, nothing hidden."""

from __future__ import annotations

import errno
import itertools
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake import inbox
from cj_pipeline.intake.inbox import Arrival, Item, Known, Look, Looked, items_in, moved_away
from cj_pipeline.operations.personal_data.erase import forget_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.storage.private_files import open_to_others
from tests.support.batches import open_engine, write_batch

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
SETTINGS = {"judges": ["quality"], "max_pairwise_comparisons": 6}


def looked(
    folder: Path,
    before: Looked | None = None,
    *,
    at_s: float = 0.0,
    rest_s: float = 0.0,
    n_essays: int | None = None,
    forgotten: tuple[str, ...] = (),
) -> Looked:
    """Look at an inbox so many seconds later than the first time."""
    rows = {row.name: row for row in before.all_rows} if before else {}
    look = Look(
        known=Known(rows, {}, forgotten),
        now=NOW + timedelta(seconds=at_s),
        busy=(),
        rest_of=lambda _: (rest_s, n_essays),
    )
    return look.at(items_in(folder))[0]


def states(found: Looked) -> dict[str, str]:
    """Return each item's state."""
    return {row.name: row.state for row in found.all_rows}


def names_due(found: Looked) -> list[str]:
    """Return what is to be opened now."""
    return [row.name for _, row in found.due]


def test_what_cannot_be_read_holds_nothing_up(tmp_path: Path) -> None:
    """One folder named in Latin-1, a link and a loose file used to block everybody's batches."""
    write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    (tmp_path / os.fsdecode(b"Klasse \xe4")).mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "spring-9")
    (tmp_path / "notes.txt").write_text("Not a batch.")

    found = looked(tmp_path, looked(tmp_path), at_s=3)

    assert names_due(found) == ["spring-9"]
    assert states(found) == {
        "Klasse \ufffd": "rejected",
        "linked": "rejected",
        "notes.txt": "rejected",
        "spring-9": "waiting",
    }
    reasons = {row.name: row.reason or "" for row in found.all_rows}
    assert "not UTF-8" in reasons["Klasse \ufffd"]
    assert "link" in reasons["linked"]


def test_a_folder_nobody_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a folder without read permission; a test may be run by root, who has it."""
    write_batch(tmp_path / "closed", n_students=3, settings=SETTINGS)
    write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    plain = inbox.fingerprint

    def denied(folder: Path) -> tuple[str, str | None]:
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return plain(folder)

    monkeypatch.setattr(inbox, "fingerprint", denied)
    found = looked(tmp_path, looked(tmp_path), at_s=3)

    assert names_due(found) == ["spring-9"]
    assert found.all_rows[0].reason == "it cannot be read: Permission denied"


def test_money_waits_for_a_folder_at_rest(tmp_path: Path) -> None:
    """A slow copy that pauses must not be bought as half a class."""
    folder = write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    first = looked(tmp_path, rest_s=60)
    early = looked(tmp_path, first, at_s=59, rest_s=60)
    (folder / "essays" / "late.txt").write_text("One more.")
    changed = looked(tmp_path, early, at_s=62, rest_s=60)

    assert names_due(looked(tmp_path, early, at_s=65, rest_s=60)) == []
    assert names_due(looked(tmp_path, changed, at_s=121, rest_s=60)) == []
    assert names_due(looked(tmp_path, changed, at_s=122, rest_s=60)) == ["spring-9"]


@pytest.mark.parametrize("name", ["anna.txt.part", ".~lock.anna.docx#", "~$anna.docx", "a.tmp"])
def test_a_file_a_sync_client_is_writing_counts_as_unrest(tmp_path: Path, name: str) -> None:
    """However long it takes it to go on."""
    folder = write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    (folder / "essays" / name).write_text("")
    first = looked(tmp_path)

    later = looked(tmp_path, first, at_s=600)

    assert names_due(later) == []
    assert "still being written" in (later.all_rows[0].reason or "")


def test_a_folder_that_says_how_many_essays_waits_for_them(tmp_path: Path) -> None:
    """`n_essays` in `batch.yaml` is for classes that are handed in one by one."""
    folder = write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    first = looked(tmp_path, n_essays=4)
    held = looked(tmp_path, first, at_s=3, n_essays=4)
    (folder / "essays" / "late.txt").write_text("One more.")
    grown = looked(tmp_path, held, at_s=6, n_essays=4)

    assert held.all_rows[0].reason == "it holds 3 of the 4 essays it is to have"
    assert names_due(looked(tmp_path, grown, at_s=9, n_essays=4)) == ["spring-9"]


def test_a_try_without_effect_is_repeated_ever_more_seldom(tmp_path: Path) -> None:
    """A store that somebody held for eleven minutes used to lose the batch for good."""
    write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    found, tried_at = looked(tmp_path), []
    for second in range(1, 1200, 5):
        found = looked(tmp_path, found, at_s=second)
        if found.due:
            tried_at.append(second)

    gaps = [later - earlier for earlier, later in itertools.pairwise(tried_at)]
    assert gaps == [30, 120, 480]
    assert found.all_rows[0].tries == 4


def test_a_folder_changed_after_it_was_opened_says_so(tmp_path: Path) -> None:
    """The batch stays as it was taken, and nobody should believe otherwise."""
    folder = write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    row = looked(tmp_path).all_rows[0]
    opened = Looked((), (), (), (Arrival(**{**vars(row), "state": "opened"}),))
    (folder / "essays" / "late.txt").write_text("One more.")

    found = looked(tmp_path, opened, at_s=3)

    assert states(found) == {"spring-9": "changed"}
    assert names_due(found) == []


def test_what_is_opened_is_its_owners_alone(tmp_path: Path) -> None:
    """A teacher's program copied it in with rights for all; what a link leads to is another's."""
    (tmp_path / "inbox").mkdir()
    folder = write_batch(tmp_path / "inbox" / "spring-9", n_students=3, settings=SETTINGS)
    theirs = write_batch(tmp_path / "theirs", n_students=3, settings=SETTINGS)
    for path in (folder, theirs, *folder.rglob("*"), *theirs.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)

    place = moved_away(Item("spring-9", folder, "folder", ""), tmp_path / "ingested")
    (tmp_path / "inbox" / "linked").symlink_to(theirs)
    moved_away(Item("linked", tmp_path / "inbox" / "linked", "folder", ""), tmp_path / "ingested")

    assert place is not None
    assert list(open_to_others(place)) == []
    assert len(list(open_to_others(theirs))) == 1 + len(list(theirs.rglob("*")))


def test_a_look_costs_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two hundred folders at rest a tick looks into a few; over some ticks into all."""
    for number in range(200):
        (tmp_path / f"batch-{number:04d}" / "essays").mkdir(parents=True)
    rows = {
        row.name: Arrival(**{**vars(row), "state": "opened"}) for row in looked(tmp_path).all_rows
    }
    ticks, plain, seen = itertools.count(), inbox.fingerprint, list[str]()
    # A clock on which each look into a folder takes a millisecond, however fast the machine is.
    monkeypatch.setattr("cj_pipeline.intake.inbox.time.monotonic", lambda: next(ticks) / 1000)
    monkeypatch.setattr(inbox, "fingerprint", lambda path: (seen.append(path.name), plain(path))[1])
    look = Look(Known(rows, {}, ()), NOW, (), lambda _: (0.0, None))

    at_most = int(1000 * inbox.LOOK_AGAIN_S) + 1
    begin_at, most = 0, 0
    for _ in range(200 // (at_most - 2) + 1):
        before = len(seen)
        found, begin_at = look.at(items_in(tmp_path), begin_at=begin_at)
        most = max(most, len(seen) - before)
        assert found.rows == ()
        assert len(found.all_rows) == 200

    assert most <= at_most < 50
    assert len(set(seen)) == 200


def test_what_was_removed_for_good_does_not_come_back_by_itself(tmp_path: Path) -> None:
    """Neither a touch nor another name brings it back: only the flag does."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(tmp_path / "spring-9", n_students=3, settings=SETTINGS)
    ingest(runtime, folder)
    _forget(runtime, "spring-9")
    other = folder.rename(tmp_path / "autumn-9")

    with pytest.raises(BatchProblemsError, match="removed for good"):
        ingest(runtime, other)
    assert ingest(runtime, other, may_return=True).is_new
    assert states(looked(tmp_path, forgotten=("autumn-9",)))["autumn-9"] == "forgotten"


def _forget(runtime: Runtime, batch_id: str) -> None:
    forget_batch(runtime.store, batch_id, now=NOW, unsettled=True)  # type: ignore[arg-type]

"""Removing people's data for good."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from cj_pipeline.errors import UnknownBatchError, UnknownPersonError, UnsettledBatchError
from cj_pipeline.operations.personal_data import erase
from cj_pipeline.operations.personal_data.erase import (
    begun_erasures,
    finish_erasures,
    forget_batch,
    forget_essay,
    forget_person,
    forget_what_is_due,
    remains,
    words_of,
)
from cj_pipeline.operations.personal_data.erase_again import erased_since
from cj_pipeline.outputs.exported import ANY_BATCH, record_export
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.maintenance import backup_store, check_store, restore_store
from tests.support.finished_batches import ARGUMENTS, SPRING, fill, insert_all, spring_rows

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
PUPIL = "pupil-03"
WORDS = "A sentence that only this pupil would write, twenty-three violet umbrellas."


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A published store in which one pupil's words also came back in a judge's reply."""
    store = FileStore(tmp_path / "home")
    with store.write() as db:
        fill(db)
        db.execute(
            "UPDATE essays SET text = ? WHERE batch_id = ? AND essay_id = ?", [WORDS, SPRING, PUPIL]
        )
        db.execute(
            "UPDATE comparisons SET justification = ? WHERE ? IN (essay_a, essay_b)", [WORDS, PUPIL]
        )
    export = store.home / "batches" / SPRING
    export.mkdir(parents=True)
    (export / "report.html").write_text(WORDS)
    store.publish()
    store.publish()
    return store


def _files_with(home: Path, words: str) -> list[Path]:
    return [p for p in home.rglob("*") if p.is_file() and words.encode() in p.read_bytes()]


def test_the_words_are_in_the_files_beforehand(store: FileStore) -> None:
    """Otherwise the tests below would prove nothing."""
    assert len(_files_with(store.home, WORDS)) >= 3


def test_a_forgotten_batch_is_nowhere_in_the_folder(store: FileStore) -> None:
    """Deleted rows linger in free blocks and older copies unless they are rewritten."""
    forgotten = forget_batch(store, SPRING, now=NOW)

    assert forgotten.n_rows > 91
    assert _files_with(store.home, WORDS) == []
    assert _files_with(store.home, PUPIL) == []


def test_other_batches_stay_whole(store: FileStore) -> None:
    """Forgetting one class must not cost another its grades."""
    with store.read() as db:
        before = db.rows("FROM v_scores WHERE batch_id = ? ORDER BY ALL", [ARGUMENTS])

    forget_batch(store, SPRING, now=NOW)

    with store.read() as db:
        assert db.rows("FROM v_scores WHERE batch_id = ? ORDER BY ALL", [ARGUMENTS]) == before
    assert check_store(store).problems == ()


def test_an_audit_line_stays(store: FileStore) -> None:
    """It says that something was removed, and nothing of what it was."""
    forget_batch(store, SPRING, now=NOW)

    with store.read() as db:
        row = db.one("SELECT batch_id, forgotten_at, essay_alias FROM forgotten")
    assert row == {"batch_id": SPRING, "forgotten_at": NOW, "essay_alias": None}


def test_a_forgotten_essay_leaves_neither_words_nor_name(store: FileStore) -> None:
    """Essay ids come from file names, and those are often people's names."""
    forgotten = forget_essay(store, SPRING, PUPIL, now=NOW)

    assert forgotten.essay_alias is not None
    assert _files_with(store.home, WORDS) == []
    with store.read() as db:
        for table in ("essays", "comparison_pairs", "comparisons", "essay_scores", "batches"):
            found = db.rows(f"FROM {table} t WHERE contains(t::VARCHAR, ?)", [PUPIL])
            assert found == [], table


def test_the_scale_survives_a_forgotten_essay(store: FileStore) -> None:
    """The verdicts carry everybody else's scores."""
    with store.read() as db:
        before = db.rows("SELECT score FROM v_scores WHERE batch_id = ? ORDER BY 1", [SPRING])

    forget_essay(store, SPRING, PUPIL, now=NOW)

    with store.read() as db:
        after = db.rows("SELECT score FROM v_scores WHERE batch_id = ? ORDER BY 1", [SPRING])
    assert after == before
    assert check_store(store).problems == ()


def test_what_is_not_there_cannot_be_forgotten(store: FileStore) -> None:
    """A mistyped name must not look like a removal."""
    with pytest.raises(UnknownBatchError, match="nothing was removed"):
        forget_batch(store, "sprong-9", now=NOW)
    with pytest.raises(UnknownBatchError, match="nothing was removed"):
        forget_essay(store, SPRING, "nobody", now=NOW)


_PARTS = (
    "_files_of",
    "_remove",
    "_remove_from_emulator",
    "_erase_from_copies",
    "_keep_costs",
    "erase_rows",
    "_record",
    "compact_store",
    "_backups_elsewhere",
)


@pytest.mark.parametrize("part", _PARTS)
def test_an_erasure_that_died_is_finished_by_whoever_comes_next(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """What was asked for is written down before anything is removed."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(erase, part, die)
    with pytest.raises(KeyboardInterrupt):
        forget_batch(store, SPRING, now=NOW)
    monkeypatch.undo()
    assert [row["batch_id"] for row in begun_erasures(store)] == [SPRING]

    (finished,) = finish_erasures(store, now=NOW)

    assert finished.batch_id == SPRING
    assert finished.n_rows > 91
    assert _files_with(store.home, WORDS) == []
    assert begun_erasures(store) == []
    assert check_store(store).problems == ()
    with store.read() as db:
        assert db.rows("SELECT batch_id FROM forgotten") == [{"batch_id": SPRING}]
        assert db.one("SELECT sum(n_jobs)::INT AS n FROM forgotten_costs") == {"n": 3}


@pytest.mark.parametrize("part", ["_erase_from_copies", "compact_store"])
def test_asking_again_for_what_died_is_no_error(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whoever sees a killed command types it again."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(erase, part, die)
    with pytest.raises(KeyboardInterrupt):
        forget_essay(store, SPRING, PUPIL, now=NOW)
    monkeypatch.undo()

    again = forget_essay(store, SPRING, PUPIL, now=NOW)

    assert again.essay_alias is not None
    assert _files_with(store.home, WORDS) == []
    with store.read() as db:
        assert db.one("SELECT count(*) AS n FROM forgotten") == {"n": 1}


def test_a_batch_under_way_is_not_forgotten(store: FileStore) -> None:
    """Its provider job would be paid for by nobody."""
    with store.write() as db:
        db.execute("UPDATE batches SET state = 'running' WHERE batch_id = ?", [SPRING])

    with pytest.raises(UnsettledBatchError, match="cj cancel"):
        forget_batch(store, SPRING, now=NOW)
    assert begun_erasures(store) == []


def test_a_batch_with_bills_to_come_is_forgotten_only_on_request(store: FileStore) -> None:
    """Then what it may still cost is kept as reserved."""
    with store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET state = 'ambiguous', billed_usd = NULL, reserved_usd = 7.5 "
            "WHERE batch_id = ? AND wave = 3",
            [SPRING],
        )
    with pytest.raises(UnsettledBatchError, match="1 provider job not settled"):
        forget_batch(store, SPRING, now=NOW)

    forget_batch(store, SPRING, now=NOW, unsettled=True)

    with store.read() as db:
        kept = db.one("SELECT sum(reserved_usd) AS usd FROM forgotten_costs")
    assert kept == {"usd": 7.5}


def test_what_a_forgotten_batch_cost_is_kept(store: FileStore) -> None:
    """Money stays, words go."""
    with store.read() as db:
        before = db.one("SELECT billed_usd FROM v_batch_costs WHERE batch_id = ?", [SPRING])

    forget_batch(store, SPRING, now=NOW)

    with store.read() as db:
        after = db.one(
            "SELECT sum(billed_usd) AS billed_usd FROM forgotten_costs WHERE batch_id = ?", [SPRING]
        )
    assert before is not None
    assert after == {"billed_usd": pytest.approx(before["billed_usd"])}


def test_a_copied_home_leaves_the_files_of_the_one_it_was_copied_from(
    store: FileStore, tmp_path: Path
) -> None:
    """Rows name files by their whole path, and a copy's rows name the original's."""
    report = store.home / "batches" / SPRING / "report.html"
    with store.write() as db:
        db.execute("UPDATE batch_report SET path = ? WHERE batch_id = ?", [str(report), SPRING])
        row = {"batch_id": SPRING, "path": str(report), "sha256": "", "n_bytes": 1}
        db.insert("batch_report", [row | {"written_at": NOW}], on_conflict="replace")
    shutil.copytree(store.home, tmp_path / "copy")

    forget_batch(FileStore(tmp_path / "copy"), SPRING, now=NOW)

    assert report.exists()
    assert _files_with(tmp_path / "copy", WORDS) == []


def test_a_link_in_the_home_goes_and_what_it_leads_to_stays(
    store: FileStore, tmp_path: Path
) -> None:
    """Only what lies in the home is the store's to remove."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    (store.home / "inbox").mkdir()
    (store.home / "inbox" / SPRING).symlink_to(outside)

    forget_batch(store, SPRING, now=NOW)

    assert not (store.home / "inbox" / SPRING).is_symlink()
    assert (outside / "theirs").exists()


def test_older_copies_in_the_home_lose_it_too_and_keep_the_rest(store: FileStore) -> None:
    """A restore lays the old file aside, and a backup may have been written there."""
    backup = backup_store(store, store.home / "backups" / "monday.duckdb", now=NOW)
    aside = restore_store(store, backup, now=NOW)
    torn = store.home / "cj.duckdb.before-20200101T000000"
    torn.write_bytes(backup.read_bytes()[:300_000])
    (store.home / "published" / "cj.duckdb.unfinished").write_text(WORDS)

    forget_batch(store, SPRING, now=NOW)

    assert _files_with(store.home, WORDS) == []
    assert not torn.exists()
    assert aside is not None
    for path in (backup, aside):
        with duckdb.connect(str(path), read_only=True) as db:
            found = db.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall()
            assert found == [("arguments",), ("broken",)], path


def test_backups_elsewhere_are_named(store: FileStore, tmp_path: Path) -> None:
    """They are for their owner to prune, who has to know of them."""
    kept = backup_store(store, tmp_path / "kept.duckdb", now=NOW)
    backup_store(store, tmp_path / "pruned.duckdb", now=NOW).unlink()

    forgotten = forget_batch(store, SPRING, now=NOW)

    assert forgotten.backups == (kept,)
    assert forgotten.exports == ()
    assert len(_files_with(tmp_path, WORDS)) == 1


def _exported(store: FileStore, elsewhere: Path) -> None:
    """Have everything written that people can ask for, in the home and outside, and recorded."""
    with store.write() as db:
        for folder in (store.home / "exports", elsewhere):
            folder.mkdir()
            record_export(db, folder, "person's record", [SPRING], now=NOW, essay_id=PUPIL)
            record_export(db, folder, "pages", [SPRING], now=NOW)
            record_export(db, folder / "both.html", "comparison", [SPRING, ARGUMENTS], now=NOW)
            record_export(db, folder / "asked.parquet", "query", [ANY_BATCH], now=NOW)
            record_export(db, folder / "others.csv", "verdicts", [ARGUMENTS], now=NOW)
            names = (f"{PUPIL}.json", f"{PUPIL}.pdf", "both.html", "asked.parquet", "others.csv")
            for name in names:
                (folder / name).write_text("others' words" if name == "others.csv" else WORDS)


@pytest.mark.parametrize("essay_id", [None, PUPIL])
def test_what_was_exported_goes_in_the_home_and_is_named_elsewhere(
    store: FileStore, tmp_path: Path, essay_id: str | None
) -> None:
    """Also what a query wrote, in which nobody knows what is; another batch's stays."""
    elsewhere = tmp_path / "elsewhere"
    _exported(store, elsewhere)

    forgotten = (
        forget_essay(store, SPRING, essay_id, now=NOW)
        if essay_id
        else forget_batch(store, SPRING, now=NOW)
    )

    assert forgotten.exports == (
        f"{elsewhere} (pages, 2026-03-03)",
        f"{elsewhere} (person's record, 2026-03-03)",
        f"{elsewhere}/asked.parquet (query, 2026-03-03)",
        f"{elsewhere}/both.html (comparison, 2026-03-03)",
    )
    assert _files_with(store.home, WORDS) == []
    assert [path.name for path in (store.home / "exports").iterdir()] == ["others.csv"]
    assert len(list(elsewhere.iterdir())) == 5
    assert _files_with(store.home, PUPIL) == []


def test_what_was_exported_is_named_although_the_command_died(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a path that holds the very name that was to go: that is nowhere written down."""
    for folder in (tmp_path / "elsewhere", tmp_path / PUPIL):
        folder.mkdir()
        with store.write() as db:
            record_export(db, folder, "pages", [SPRING], now=NOW)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(erase, "compact_store", die)
        with pytest.raises(KeyboardInterrupt):
            forget_essay(store, SPRING, PUPIL, now=NOW)

    (finished,) = finish_erasures(store, now=NOW)

    assert finished.exports == (f"{tmp_path / 'elsewhere'} (pages, 2026-03-03)",)
    assert _files_with(store.home, f"{PUPIL} (pages") == []


def test_what_was_exported_on_another_machine_is_named_with_it(store: FileStore) -> None:
    """Whether it is there still, nobody here can see."""
    with store.write() as db:
        path = Path("/home/bo/pages")
        record_export(db, path, "pages", [SPRING], now=NOW, host="staffroom")

    forgotten = forget_batch(store, SPRING, now=NOW)

    assert forgotten.exports == ("/home/bo/pages on staffroom (pages, 2026-03-03)",)


def test_other_batches_with_the_same_text_are_named(store: FileStore) -> None:
    """A text that was handed in twice is gone only when both are."""
    with store.write() as db:
        db.execute("UPDATE essays SET text = 'the same' WHERE essay_id IN (?, 'text-1')", [PUPIL])

    forgotten = forget_essay(store, SPRING, PUPIL, now=NOW)

    assert forgotten.elsewhere == ((ARGUMENTS, "text-1"),)


def test_an_essays_name_goes_from_the_stored_batch_yaml(store: FileStore) -> None:
    """People write the names of pupils there, as keys and in lists."""
    with store.write() as db:
        db.execute("DELETE FROM documents WHERE batch_id = ?", [SPRING])
        text = f"essays:\n  {PUPIL}: anna.txt\n  {PUPIL}-b: bo.txt\n"
        row = {"batch_id": SPRING, "kind": "batch", "content": text, "source_path": "batch.yaml"}
        db.insert("documents", [row | {"sha256": "x", "n_bytes": len(text)}])
        db.execute("UPDATE essays SET file_name = 'anna.txt' WHERE essay_id = ?", [PUPIL])

    forget_essay(store, SPRING, PUPIL, now=NOW)

    with store.read() as db:
        found = db.one("SELECT content FROM documents WHERE batch_id = ?", [SPRING])
    assert found == {"content": f"essays:\n  forgotten: forgotten\n  {PUPIL}-b: bo.txt\n"}


def test_what_remains_is_found_in_raw_bytes(store: FileStore) -> None:
    """As text, as JSON writes it, as HTML does; nothing is found where nothing is."""
    words = words_of(store, SPRING, PUPIL)
    assert WORDS[:60].encode() in words
    forget_essay(store, SPRING, PUPIL, now=NOW)
    assert list(remains(store.home, words)) == []

    stray = store.home / "stray.json"
    stray.write_bytes(b"x" * (4 * 1024 * 1024 - 10) + WORDS.encode())

    assert list(remains(store.home, words)) == [(stray, 1)]
    assert list(remains(store.home, ["Åsa & Bo".encode()])) == []
    stray.write_text('{"by": "\\u00c5sa & Bo"}')
    assert list(remains(store.home, ["Åsa & Bo".encode()])) == [(stray, 1)]


def _ended(store: FileStore, batch_id: str, ended_at: datetime, last_day: date | None) -> None:
    with store.write() as db:
        db.execute(
            "UPDATE batches SET ended_at = ?, settings = json_merge_patch(settings, ?) "
            "WHERE batch_id = ?",
            [ended_at, {"retention": last_day and last_day.isoformat()}, batch_id],
        )


def test_a_batch_goes_once_its_last_day_is_over(store: FileStore) -> None:
    """The batch's own date wins over the installation's number of days."""
    long_ago = NOW - timedelta(days=1000)
    _ended(store, SPRING, long_ago, NOW.date())
    _ended(store, ARGUMENTS, NOW - timedelta(days=9), None)
    _ended(store, "broken", NOW - timedelta(days=11), None)

    first = forget_what_is_due(store, now=NOW, retention_days=None)
    second = forget_what_is_due(store, now=NOW, retention_days=10)
    third = forget_what_is_due(store, now=NOW + timedelta(days=1), retention_days=None)

    assert [each.batch_id for each in first] == []
    assert [each.batch_id for each in second] == ["broken"]
    assert [each.batch_id for each in third] == [SPRING]


def test_a_batch_whose_bills_are_not_in_waits_for_another_day(store: FileStore) -> None:
    """Upkeep never gives up what is paid for."""
    _ended(store, SPRING, NOW, NOW.date() - timedelta(days=1))
    with store.write() as db:
        db.execute("UPDATE provider_jobs SET state = 'running' WHERE batch_id = ?", [SPRING])

    assert forget_what_is_due(store, now=NOW, retention_days=None) == ()


def test_what_was_handed_in_goes_whatever_it_is_called(store: FileStore) -> None:
    """A folder keeps the name people gave it, and gets a number where that is taken."""
    places = [
        store.home / "ingested" / "Spring 9" / "essays",
        store.home / "ingested" / "elsewhere-2" / "essays",
        store.home / "inbox" / "SPRING-9" / "essays",
        store.home / "inbox" / ".handed-in-0a1b" / "essays",
    ]
    for place in places:
        place.mkdir(parents=True)
        (place / "anna.txt").write_text(WORDS)
    (store.home / "ingested" / "spring-9.zip").write_text(WORDS)
    os.utime(store.home / "inbox" / ".handed-in-0a1b", (0, 0))
    others = store.home / "ingested" / "spring-91"
    others.mkdir()
    duckdb.sql(f"SELECT '{SPRING}' AS batch_id, '{WORDS}' AS text").write_parquet(
        str(store.home / "exported.parquet")
    )
    row = {"name": "Spring 9", "kind": "folder", "state": "opened", "batch_id": SPRING}
    row |= {"fingerprint": "x", "tries": 1, "place": str(places[1].parent)}
    seen = dict.fromkeys(("first_seen_at", "last_seen_at", "changed_at"), NOW)
    with store.write() as db:
        db.insert("arrivals", [row | seen])

    forget_batch(store, SPRING, now=NOW)

    assert _files_with(store.home, WORDS) == []
    assert not (store.home / "exported.parquet").exists()
    assert others.is_dir()
    with store.read() as db:
        assert db.rows("FROM arrivals") == []


def test_a_backup_brings_back_nothing_that_was_forgotten_since(
    store: FileStore, tmp_path: Path
) -> None:
    """A whole batch, an essay, one that shared its text, and a person: under the same aliases."""
    _judged_by_a_person(store)
    row = {"batch_id": SPRING, "essay_id": "pupil-99", "judged_id": "pupil-01", "given_id": "Cleo"}
    more = {"file_name": "cleo.txt", "source_path": "essays/cleo.txt", "attributes": "{}"}
    with store.write() as db:
        db.insert("shared_texts", [row | more])
    backup = backup_store(store, tmp_path / "outside.duckdb", now=NOW)
    essay = forget_essay(store, SPRING, PUPIL, now=NOW)
    forget_essay(store, SPRING, "pupil-99", now=NOW)
    (person,) = forget_person(store, PERSON, now=NOW)
    forget_batch(store, ARGUMENTS, now=NOW)

    restore_store(
        store, backup, now=NOW, amend=lambda live, restored: erased_since(live, restored, NOW)
    )
    finished = finish_erasures(store, now=NOW)

    assert len(finished) == 4
    for words in (WORDS, PERSON, "pupil-99", "Cleo"):
        assert _files_with(store.home, words) == [], words
    with store.read() as db:
        assert db.one("SELECT count(*) AS n FROM batches WHERE batch_id = ?", [ARGUMENTS]) == {
            "n": 0
        }
        aliased = db.rows("SELECT 1 FROM essays WHERE essay_id = ?", [essay.essay_alias])
        named = db.rows("SELECT 1 FROM human_answers WHERE person = ?", [person.essay_alias])
    assert (len(aliased), len(named)) == (1, 1)


def test_what_a_backup_never_had_stays_on_record_as_forgotten(
    store: FileStore, tmp_path: Path
) -> None:
    """So that it does not come back by itself; what the backup knows of is not done twice."""
    forget_batch(store, ARGUMENTS, now=NOW)
    backup = backup_store(store, tmp_path / "outside.duckdb", now=NOW)
    with store.write() as db:
        insert_all(db, spring_rows("spring-again"))
    forget_batch(store, "spring-again", now=NOW + timedelta(days=1))

    restore_store(
        store, backup, now=NOW, amend=lambda live, restored: erased_since(live, restored, NOW)
    )

    assert begun_erasures(store) == []
    with store.read() as db:
        rows = db.rows("SELECT batch_id FROM forgotten ORDER BY forgotten_at")
    assert [row["batch_id"] for row in rows] == [ARGUMENTS, "spring-again"]


def test_a_person_goes_from_what_other_programs_keep_as_well(store: FileStore) -> None:
    """Shared files and Dagster's runs bear the name too, and the batch itself stays there."""
    _judged_by_a_person(store)
    asked: list[tuple[str, bool]] = []

    def beyond(batch_id: str, is_whole: bool) -> int:
        asked.append((batch_id, is_whole))
        return 3

    (done,) = forget_person(store, PERSON, now=NOW, beyond=beyond)

    assert asked == [(SPRING, False)]
    assert done.n_files >= 3


PERSON = "Bo Ek-Lind"


def _judged_by_a_person(store: FileStore) -> None:
    judge = {"batch_id": SPRING, "judge_id": "people", "essay_a": PUPIL, "essay_b": "pupil-01"}
    answer = {"kind": "verdict", "source": "import", "person": PERSON, "winner": "A", "number": 1}
    times = {"decided_at": NOW, "stored_at": NOW}
    with store.write() as db:
        db.insert("human_answers", [{"answer_id": "a1"} | judge | answer | times])
    store.publish()


def test_a_person_who_judged_is_forgotten_by_name(store: FileStore, tmp_path: Path) -> None:
    """Their verdicts stay, in every copy of the store, under a name that says nothing."""
    _judged_by_a_person(store)
    backup_store(store, store.home / "backups" / "monday.duckdb", now=NOW)
    backup_store(store, tmp_path / "outside.duckdb", now=NOW)
    (store.home / "batches" / SPRING / "report.html").write_text(PERSON)
    assert len(_files_with(store.home, PERSON)) >= 3

    (forgotten,) = forget_person(store, PERSON, now=NOW)

    assert forgotten.is_person
    assert forgotten.backups == (tmp_path / "outside.duckdb",)
    assert _files_with(store.home, PERSON) == []
    assert begun_erasures(store) == []
    with store.read() as db:
        found = db.one("SELECT person, winner FROM human_answers")
        assert found == {"person": forgotten.essay_alias, "winner": "A"}
        assert db.one("SELECT count(*) AS n FROM batches") == {"n": 3}
    with pytest.raises(UnknownPersonError, match="nothing was removed"):
        forget_person(store, PERSON, now=NOW)


@pytest.mark.parametrize("part", ["_erase_from_copies", "rename_person", "compact_store"])
def test_a_person_is_forgotten_although_the_command_died(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whoever types it again, or only has the store checked, finishes it."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    _judged_by_a_person(store)
    monkeypatch.setattr(erase, part, die)
    with pytest.raises(KeyboardInterrupt):
        forget_person(store, PERSON, now=NOW)
    monkeypatch.undo()

    (forgotten,) = forget_person(store, PERSON, now=NOW)

    assert forgotten.is_person
    assert _files_with(store.home, PERSON) == []
    assert begun_erasures(store) == []


def test_people_who_wrote_in_it_go_with_a_batch(store: FileStore) -> None:
    """Their names and reasons, in the published copy too."""
    _judged_by_a_person(store)

    forget_batch(store, SPRING, now=NOW)

    assert _files_with(store.home, PERSON) == []

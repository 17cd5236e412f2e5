"""Removing a batch or an essay for good, and keeping a line that says so.

What is to go is written down first, so an erasure that dies anywhere is finished by the next one,
by `cj store check` or by the nightly upkeep. Files go before rows, since rows know of them; and
deleting rows is not enough: DuckDB leaves what was deleted in free blocks, and older copies still
hold it. So every database file of the home is rewritten. Nothing outside the home is touched;
what is known to lie there is named.

Connections that are open on an older copy keep it until they are closed.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from cj_pipeline.errors import (
    StoreError,
    UnknownBatchError,
    UnknownPersonError,
    UnsettledBatchError,
)
from cj_pipeline.ids import id_for
from cj_pipeline.live.journal import folder_of
from cj_pipeline.operations.personal_data.erase_rows import (
    PERSON_ALIAS,
    batches_of_person,
    erase_rows,
    names_of,
    rename_person,
)
from cj_pipeline.outputs.exported import exports_elsewhere, files_exported
from cj_pipeline.queries.same_texts import essays_with_the_text
from cj_pipeline.storage.file_swap import UNFINISHED
from cj_pipeline.storage.published_files import PUBLISHED_IN
from cj_pipeline.store.file_store import FileStore, connect_file
from cj_pipeline.store.identity import begin_epoch
from cj_pipeline.store.maintenance import (
    CALLBACKS_FOLDER,
    compact_store,
    half_handed_in,
    rewrite_file,
)
from cj_pipeline.store.session import Session
from cj_pipeline.store.snapshot import spare_of

Beyond = Callable[[str, bool], int]
"""Removes what another program of the home keeps of a batch, given its name and whether the whole
batch goes; returns how much that was. May be called twice."""

_COMPARISON_ID = re.compile(rb"[0-9a-f]{10}-\d{7,}")
_EMULATOR_STATE = "emulator.sqlite"
_LOOKED_AT_ONCE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Forgotten:
    """What was removed.

    Attributes:
        batch_id: Of what batch.
        essay_alias: The id that an essay's scores bear since; None for a whole batch.
        n_rows: Rows removed or rewritten.
        n_files: Files and folders removed.
        elsewhere: Essays of other batches that have the same text, as (batch, essay).
        backups: Backups that were written before, are outside the home, and may hold it still.
        exports: What people had written outside the home and may hold it still, each as a line.
    """

    batch_id: str
    essay_alias: str | None
    n_rows: int
    n_files: int
    elsewhere: tuple[tuple[str, str], ...] = ()
    backups: tuple[Path, ...] = ()
    exports: tuple[str, ...] = ()

    @property
    def is_person(self) -> bool:
        """Whether it was the name of a person who judged or decided."""
        return (self.essay_alias or "").startswith(PERSON_ALIAS)


def nothing_beyond(batch_id: str, is_whole: bool) -> int:
    """Remove nothing: for homes that no other program uses."""
    del batch_id, is_whole
    return 0


def forget_batch(
    store: FileStore,
    batch_id: str,
    *,
    now: datetime,
    unsettled: bool = False,
    beyond: Beyond = nothing_beyond,
) -> Forgotten:
    """Remove everything of a batch: texts, callbacks, scores, grades, exports.

    What it cost is kept, by judge, account and day.

    Args:
        store: Where it is.
        batch_id: Its name.
        now: Of the line that is kept.
        unsettled: Whether to do it although bills are still to come; what they may come to is
            kept as reserved.
        beyond: Removes what other programs keep of it in the home.

    Raises:
        UnknownBatchError: If there is no such batch.
        UnsettledBatchError: If it is under way, or a provider job of it is not settled.
        StoreError: If the disk refused; what was begun is finished later.
    """
    return _forget(store, batch_id, None, now, unsettled=unsettled, beyond=beyond)


def forget_essay(
    store: FileStore,
    batch_id: str,
    essay_id: str,
    *,
    now: datetime,
    unsettled: bool = False,
    beyond: Beyond = nothing_beyond,
) -> Forgotten:
    """Remove an essay's text, its callbacks and what judges wrote about it.

    Its scores and verdicts stay, since they carry the batch's scale, under a random id that says
    nothing of the old one. The batch's exports are removed; `cj report` writes them anew.
    Arguments and errors as `forget_batch`.

    Raises:
        UnknownBatchError: If there is no such essay in the batch.
    """
    return _forget(store, batch_id, essay_id, now, unsettled=unsettled, beyond=beyond)


def forget_person(
    store: FileStore, person: str, *, now: datetime, beyond: Beyond = nothing_beyond
) -> tuple[Forgotten, ...]:
    """Replace the name of somebody who judged, graded or decided, in every batch.

    What they decided stays and counts, under a random name that is the same in all batches; their
    links to the judging page end. The batches' exports are removed; `cj report` writes them anew.

    Raises:
        UnknownPersonError: If nobody of this name is in the store.
        StoreError: If the disk refused; what was begun is finished later.
    """
    finished = [each for each in finish_erasures(store, now=now, beyond=beyond) if each.is_person]
    with store.write() as db:
        batches = batches_of_person(db, person)
        if not batches and not finished:
            msg = (
                f"No person called '{person}' judged or decided in any batch; nothing was removed."
            )
            raise UnknownPersonError(msg)
        alias = f"{PERSON_ALIAS}{secrets.token_hex(6)}"
        erasures = [_intended(store, db, each, now, alias=alias, person=person) for each in batches]
        db.insert("erasures", erasures)
    return (*finished, *_finish(store, erasures, now, beyond))


def finish_erasures(
    store: FileStore, *, now: datetime, beyond: Beyond = nothing_beyond
) -> tuple[Forgotten, ...]:
    """Bring every erasure that was begun to its end; return them.

    Raises:
        StoreError: If the disk refused again.
    """
    return _finish(store, begun_erasures(store), now, beyond)


def forget_what_is_due(
    store: FileStore,
    *,
    now: datetime,
    retention_days: float | None,
    beyond: Beyond = nothing_beyond,
) -> tuple[Forgotten, ...]:
    """Forget the batches whose time is over, and return them.

    One that has not ended, or whose bills are not in, waits for another day.

    Args:
        store: Where they are.
        now: The time.
        retention_days: How long after its end a batch is kept that names no day itself; None:
            for ever.
        beyond: As in `forget_batch`.

    Raises:
        StoreError: If the disk refused; what was begun is finished later.
    """
    with store.read() as db:
        rows = db.rows(
            "SELECT batch_id, settings->>'retention' AS last_day, ended_at FROM batches"
            " WHERE state <> 'running' ORDER BY batch_id"
        )
    gone = []
    for row in rows:
        if not _is_over(row, now, retention_days):
            continue
        with suppress(UnsettledBatchError):
            gone.append(forget_batch(store, row["batch_id"], now=now, beyond=beyond))
    return tuple(gone)


def _is_over(row: dict[str, Any], now: datetime, retention_days: float | None) -> bool:
    if row["last_day"] is not None:
        return now.date() > date.fromisoformat(row["last_day"])
    if retention_days is None or row["ended_at"] is None:
        return False
    ended_at: datetime = row["ended_at"]
    return ended_at + timedelta(days=retention_days) < now


def begun_erasures(store: FileStore) -> list[dict[str, Any]]:
    """Return the erasures that did not come to their end; the store's schema is left as it is."""
    if not store.path.exists():
        return []
    with store.opened() as connection:
        db = Session(connection)
        if db.one("SELECT 1 AS found FROM duckdb_tables() WHERE table_name = 'erasures'") is None:
            return []
        return db.rows("FROM erasures ORDER BY asked_at")


def _forget(
    store: FileStore,
    batch_id: str,
    essay_id: str | None,
    now: datetime,
    *,
    unsettled: bool,
    beyond: Beyond,
) -> Forgotten:
    finished = [
        each
        for each in finish_erasures(store, now=now, beyond=beyond)
        if each.batch_id == batch_id
        and (each.essay_alias is None) == (essay_id is None)
        and not each.is_person
    ]
    with store.write() as db:
        try:
            _refuse_unknown(db, batch_id, essay_id)
        except UnknownBatchError:
            if finished:  # it was this very one that had been begun
                return finished[-1]
            raise
        if not unsettled:
            _refuse_unsettled(db, batch_id)
        elsewhere = _same_texts(db, batch_id, essay_id)
        exports = _exports_elsewhere(store, db, batch_id)
        alias = None if essay_id is None else f"forgotten-{secrets.token_hex(6)}"
        erasure = _intended(store, db, batch_id, now, alias=alias, essay_id=essay_id)
        db.insert("erasures", [erasure])
    (done,) = _finish(store, [erasure], now, beyond)
    return replace(done, elsewhere=elsewhere, exports=exports)


def _intended(
    store: FileStore,
    db: Session,
    batch_id: str,
    now: datetime,
    *,
    alias: str | None,
    essay_id: str | None = None,
    person: str | None = None,
) -> dict[str, Any]:
    names = names_of(db, batch_id, essay_id) if essay_id is not None else [person or ""]
    left = _exports_elsewhere(store, db, batch_id)
    return {
        "erasure_id": secrets.token_hex(8),
        "batch_id": batch_id,
        "essay_id": essay_id,
        "essay_alias": alias,
        "person": person,
        # A path may hold the very name that is to go: then it is told, and not written down.
        "exports": [each for each in left if not any(name and name in each for name in names)],
        "state": "intended",
        "n_rows": None,
        "n_files": None,
        "asked_at": now,
    }


def _finish(
    store: FileStore, erasures: list[dict[str, Any]], now: datetime, beyond: Beyond
) -> tuple[Forgotten, ...]:
    """Do what is left of some erasures; each part may be done twice."""
    if not erasures:
        return ()
    try:
        done = [_erase(store, erasure, now, beyond) for erasure in erasures]
        # A run that was writing meanwhile may have put something there again.
        for each in done:
            _remove(store.home, _folders_of(store.home, each.batch_id))
        spare_of(store.published_path).unlink(missing_ok=True)
        compact_store(store)
        # What it replaced became the spare.
        spare_of(store.published_path).unlink(missing_ok=True)
    except (OSError, duckdb.Error, sqlite3.Error, StoreError) as error:
        names = ", ".join(dict.fromkeys(f"'{erasure['batch_id']}'" for erasure in erasures))
        msg = (
            f"Removing batch {names} did not come to its end: {error.__cause__ or error}. It"
            " is written down what is left to remove: the next `cj forget` or `cj store check`"
            " goes on with it."
        )
        raise StoreError(msg) from error
    with store.write() as db:
        backups = _backups_elsewhere(store, db)
        for erasure in erasures:
            db.execute("DELETE FROM erasures WHERE erasure_id = ?", [erasure["erasure_id"]])
    return tuple(
        replace(each, backups=backups, exports=tuple(erasure["exports"] or ()))
        for each, erasure in zip(done, erasures, strict=True)
    )


def _erase(store: FileStore, erasure: dict[str, Any], now: datetime, beyond: Beyond) -> Forgotten:
    """Remove files and rows, unless that is done; what deletion leaves in the files stays."""
    batch_id, essay_id, alias = (erasure[key] for key in ("batch_id", "essay_id", "essay_alias"))
    person = erasure.get("person")
    forgotten = Forgotten(batch_id, alias, erasure["n_rows"] or 0, erasure["n_files"] or 0)
    if erasure["state"] != "intended":
        return forgotten
    is_whole = essay_id is None and person is None

    def rows_of(db: Session) -> int:
        if person is not None:
            return rename_person(db, batch_id, person, alias)
        return erase_rows(db, batch_id, essay_id, alias)

    if person is not None:
        with store.read() as db:
            paths = [store.home / "batches" / batch_id, *files_exported(db, batch_id)]
        n_files = _remove(store.home, paths)
    else:
        with store.read() as db:
            paths = _files_of(store, db, batch_id)
            shown = _comparisons_of(db, batch_id, essay_id)
        n_files = _remove(store.home, paths) + _remove_from_emulator(store.home, shown)
    n_files += beyond(batch_id, is_whole)
    with store.held():
        n_files += _erase_from_copies(store, rows_of)
    with store.write() as db:
        if is_whole:
            _keep_costs(db, batch_id, now)
            _begin_epoch(db, batch_id, now)
        content = db.one("SELECT content_sha256 FROM batches WHERE batch_id = ?", [batch_id])
        forgotten = replace(forgotten, n_rows=rows_of(db), n_files=n_files)
        db.execute(
            "UPDATE erasures SET state = 'rows_gone', essay_id = NULL, person = NULL, n_rows = ?,"
            " n_files = ? WHERE erasure_id = ?",
            [forgotten.n_rows, n_files, erasure["erasure_id"]],
        )
        sha256 = content["content_sha256"] if content and is_whole else None
        _record(db, forgotten, now, sha256)
    return forgotten


def _begin_epoch(db: Session, batch_id: str, now: datetime) -> None:
    """Have a batch's jobs searched for, should it be submitted again: nobody knows them now."""
    row = db.one(
        "SELECT min(intended_at) AS since FROM provider_jobs"
        " WHERE batch_id = ? AND batching_mode = 'provider_batch_api'",
        [batch_id],
    )
    if row is not None and row["since"] is not None:
        begin_epoch(db, "forgotten", None, now, jobs_since=row["since"])


def _keep_costs(db: Session, batch_id: str, now: datetime) -> None:
    """Keep what a batch cost, and what it may cost yet, without any of its words."""
    db.execute(
        """
        INSERT INTO forgotten_costs
        SELECT p.batch_id, p.judge_id, p.provider, p.model, p.account, p.intended_at::DATE,
            count(*), sum(p.n_requests),
            coalesce(sum(a.tokens_prompt), 0), coalesce(sum(a.tokens_completion), 0),
            coalesce(sum(p.reserved_usd) FILTER (WHERE p.billed_usd IS NULL), 0),
            coalesce(sum(p.billed_usd), 0) + coalesce(sum(d.billed_usd), 0),
            coalesce(sum(p.possible_usd), 0), $now
        FROM provider_jobs p
        LEFT JOIN (
            SELECT submission_key, sum(tokens_prompt) AS tokens_prompt,
                sum(tokens_completion) AS tokens_completion
            FROM attempts WHERE batch_id = $batch GROUP BY submission_key
        ) a USING (submission_key)
        LEFT JOIN (
            SELECT submission_key, sum(billed_usd) AS billed_usd
            FROM duplicate_jobs WHERE batch_id = $batch GROUP BY submission_key
        ) d USING (submission_key)
        WHERE p.batch_id = $batch
        GROUP BY p.batch_id, p.judge_id, p.provider, p.model, p.account, p.intended_at::DATE
        """,
        {"batch": batch_id, "now": now},
    )


def _files_of(store: FileStore, db: Session, batch_id: str) -> list[Path]:
    """Return the files and folders that were written for a batch, or handed in for it."""
    written = db.rows(
        "SELECT path FROM run_artefact WHERE batch_id = $batch "
        "UNION ALL SELECT path FROM batch_report WHERE batch_id = $batch "
        "UNION ALL SELECT source_path FROM batches WHERE batch_id = $batch "
        "UNION ALL SELECT source_path FROM essays WHERE batch_id = $batch",
        {"batch": batch_id},
    )
    # What was published is recorded below its folder; a whole path stays what it is.
    named = [store.home / PUBLISHED_IN / row["path"] for row in written if row["path"]]
    arrived = db.rows("SELECT name, place FROM arrivals WHERE batch_id = ?", [batch_id])
    named += [store.home / "inbox" / row["name"] for row in arrived]
    named += [Path(row["place"]) for row in arrived if row["place"] != "inbox"]
    return [
        *_folders_of(store.home, batch_id),
        *_handed_in(store.home, batch_id),
        *_parquet_of(store.home, batch_id),
        *files_exported(db, batch_id),
        *named,
    ]


def _handed_in(home: Path, batch_id: str) -> Iterator[Path]:
    """Yield what was put into the inbox for a batch, whatever it is called there and since."""
    for place in (home / "inbox", home / "ingested"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = path.name.removeprefix(".")
            called = name[:-4] if name.lower().endswith(".zip") else name
            if id_for(called, prefix="batch") == batch_id:
                yield path


def _parquet_of(home: Path, batch_id: str) -> Iterator[Path]:
    """Yield the Parquet files in the home into which anything of a batch was exported."""
    archives = home / CALLBACKS_FOLDER
    with closing(duckdb.connect()) as db:
        for path in sorted(home.rglob("*.parquet")):
            if path.parent == archives or path.is_symlink():
                continue
            with suppress(duckdb.Error):
                query = "SELECT 1 FROM read_parquet(?) WHERE batch_id = ? LIMIT 1"
                if db.execute(query, [str(path), batch_id]).fetchone():
                    yield path


def _folders_of(home: Path, batch_id: str) -> list[Path]:
    """Return where the home keeps files of a batch, by its name."""
    return [
        *(home / folder / batch_id for folder in ("batches", "dry-runs", "inbox", "ingested")),
        *(
            home / CALLBACKS_FOLDER / f"{batch_id}.parquet{ending}"
            for ending in ("", ".unfinished")
        ),
        folder_of(home, batch_id),
    ]


def _remove(home: Path, paths: Iterable[Path]) -> int:
    """Remove files and folders that are inside the home; return how many there were.

    Rows of a home that was copied name files of the one it was copied from: those stay.
    """
    inside, n_removed = home.resolve(), 0
    for path in dict.fromkeys(paths):
        lies_in = path.parent.resolve()
        if not (lies_in == inside or inside in lies_in.parents) or not path.name:
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        n_removed += 1
    return n_removed


def _comparisons_of(db: Session, batch_id: str, essay_id: str | None) -> set[bytes]:
    rows = db.rows(
        "SELECT comparison_id FROM comparison_pairs WHERE batch_id = $batch "
        "AND ($essay IS NULL OR $essay IN (essay_a, essay_b))",
        {"batch": batch_id, "essay": essay_id},
    )
    return {row["comparison_id"].encode() for row in rows}


def _remove_from_emulator(home: Path, comparison_ids: set[bytes]) -> int:
    """Remove the files of the embedded emulator that show any of some comparisons.

    They are found by what is in them, so uploads that no job came of are found too.
    """
    state = home / _EMULATOR_STATE
    folder = state.with_name(f"{state.name}.files")
    removed = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not comparison_ids.isdisjoint(_COMPARISON_ID.findall(path.read_bytes()))
    ]
    for path in removed:
        path.unlink()
    if state.exists():
        names = [(path.relative_to(folder).as_posix(),) for path in removed]
        with closing(sqlite3.connect(state, timeout=60, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM files WHERE path = ?", names)
            for job_id, request in db.execute("SELECT job_id, request FROM jobs").fetchall():
                if _shows(str(request).encode(), comparison_ids):
                    db.execute("DELETE FROM jobs WHERE job_id = ?", [job_id])
            db.executemany("DELETE FROM jobs WHERE results_path = ?", names)
            db.execute("DELETE FROM rows WHERE job_id NOT IN (SELECT job_id FROM jobs)")
            db.execute("COMMIT")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(removed)


def _shows(content: bytes, comparison_ids: set[bytes]) -> bool:
    return not comparison_ids.isdisjoint(_COMPARISON_ID.findall(content))


def _erase_from_copies(store: FileStore, rows_of: Callable[[Session], int]) -> int:
    """Remove the same from other database files in the home; return how many files were removed.

    Such are the files that a restore laid aside, and backups that were written there. One that
    cannot be opened cannot be cleaned, so it goes whole; so does what was never finished. The
    store's lock is held: whoever writes such a file holds it too.
    """
    n_removed = _remove(store.home, store.home.rglob(f"*{UNFINISHED}"))
    n_removed += _remove(store.home, [store.path.with_name(f"{store.path.name}.tmp")])
    n_removed += _remove(store.home, list(half_handed_in(store.home)))
    for path in list(_copies(store)):
        log = path.with_name(f"{path.name}.wal")
        try:
            with closing(connect_file(path, read_only=False, key=store.key)) as connection:
                connection.execute("BEGIN TRANSACTION")
                rows_of(Session(connection))
                connection.execute("COMMIT")
                connection.execute("CHECKPOINT")
            rewrite_file(path, store.key)
        except duckdb.Error:
            path.unlink()
            log.unlink(missing_ok=True)
            n_removed += 1
    return n_removed


def _copies(store: FileStore) -> Iterator[Path]:
    own = {store.path, store.published_path, spare_of(store.published_path)}
    for path in sorted(store.home.rglob("*")):
        if path in own or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(12)[8:] == b"DUCK":
                yield path


def _same_texts(db: Session, batch_id: str, essay_id: str | None) -> tuple[tuple[str, str], ...]:
    """Return the essays of other batches that have the very text that is to go."""
    found = essays_with_the_text(db, batch_id, essay_id)
    return tuple((row["batch_id"], row["essay_id"]) for row in found if row["batch_id"] != batch_id)


def _backups_elsewhere(store: FileStore, db: Session) -> tuple[Path, ...]:
    home = store.home.resolve()
    paths = [Path(row["path"]) for row in db.rows("SELECT path FROM backups ORDER BY written_at")]
    return tuple(path for path in paths if home not in path.parents and path.exists())


def _exports_elsewhere(store: FileStore, db: Session, batch_id: str) -> tuple[str, ...]:
    place = store.place()
    return exports_elsewhere(db, batch_id, store.home, place.host if place else None)


def words_of(store: FileStore, batch_id: str, essay_id: str | None) -> tuple[bytes, ...]:
    """Return pieces of what an erasure is to remove, to be searched for afterwards.

    Of each text three pieces of up to 60 characters, without line breaks; of one essay its id too.

    Raises:
        UnknownBatchError: If there is no such batch or essay.
    """
    with store.read() as db:
        _refuse_unknown(db, batch_id, essay_id)
        texts = [
            row["text"]
            for row in db.rows(
                "SELECT text FROM essays WHERE batch_id = $batch "
                "AND ($essay IS NULL OR essay_id = $essay)",
                {"batch": batch_id, "essay": essay_id},
            )
        ]
    pieces = [piece for text in texts for piece in _pieces(text)]
    return tuple(dict.fromkeys(piece.encode() for piece in [*pieces, essay_id or ""] if piece))


def _pieces(text: str) -> Iterator[str]:
    lines = [line for line in (line.strip() for line in text.splitlines()) if len(line) >= 20]
    for line in {0, len(lines) // 2, len(lines) - 1} if lines else ():
        yield lines[line][:60]


def remains(home: Path, words: Iterable[bytes]) -> Iterator[tuple[Path, int]]:
    """Search the raw bytes of every file in a home; yield each that holds any of some words.

    With it comes how many of the words it holds. What is compressed or encrypted cannot be found
    so; nor is anything outside the home looked at.
    """
    wanted = {form for word in words for form in _spellings(word)}
    longest = max((len(word) for word in wanted), default=1)
    for path in sorted(home.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        found: set[bytes] = set()
        with suppress(FileNotFoundError), path.open("rb") as file:
            before = b""
            while piece := file.read(_LOOKED_AT_ONCE):
                window = before + piece
                found |= {word for word in wanted if word in window}
                before = window[-longest:]
        if found:
            yield path, len(found)


def _spellings(word: bytes) -> set[bytes]:
    """Return a word as files may have it: plain, as ASCII JSON has it, as HTML has it."""
    import html

    text = word.decode()
    return {word, json.dumps(text)[1:-1].encode(), html.escape(text).encode()}


def _refuse_unknown(db: Session, batch_id: str, essay_id: str | None) -> None:
    if db.one("SELECT 1 AS found FROM batches WHERE batch_id = ?", [batch_id]) is None:
        msg = f"No batch '{batch_id}' is in the store; nothing was removed."
        raise UnknownBatchError(msg)
    keys = [batch_id, essay_id]
    if (
        essay_id is not None
        and db.one(
            "SELECT 1 AS found FROM essays WHERE batch_id = $1 AND essay_id = $2 UNION ALL"
            " SELECT 1 FROM shared_texts WHERE batch_id = $1 AND essay_id = $2",
            keys,
        )
        is None
    ):
        msg = f"Batch '{batch_id}' has no essay '{essay_id}'; nothing was removed."
        raise UnknownBatchError(msg)


def _refuse_unsettled(db: Session, batch_id: str) -> None:
    """Raise while money may still be asked for: the bill would have nowhere to go.

    Raises:
        UnsettledBatchError: If the batch goes on, or a provider job of it is not settled.
    """
    row = db.one(
        """
        SELECT
            (SELECT state FROM batches WHERE batch_id = $batch) AS state,
            (SELECT count(*) FROM provider_jobs WHERE batch_id = $batch
                AND state NOT IN ('settled', 'refused'))
            + (SELECT count(*) FROM duplicate_jobs WHERE batch_id = $batch
                AND state <> 'settled') AS n_open
        """,
        {"batch": batch_id},
    )
    if row is None or (row["state"] != "running" and not row["n_open"]):
        return
    jobs = f"{row['n_open']} provider job{'' if row['n_open'] == 1 else 's'} not settled"
    msg = (
        f"Batch '{batch_id}' is {row['state']}, with {jobs}; nothing was removed. `cj cancel"
        f" {batch_id}` stops it and `cj execute` brings in what is paid for; then forget it. With"
        " --unsettled it is removed at once: what it may still cost is kept as reserved, and what"
        " its provider holds is for you to delete there."
    )
    raise UnsettledBatchError(msg)


def _record(db: Session, forgotten: Forgotten, now: datetime, content_sha256: str | None) -> None:
    row = {
        "forgotten_at": now,
        "batch_id": forgotten.batch_id,
        "essay_alias": forgotten.essay_alias,
        "n_rows": forgotten.n_rows,
        "n_files": forgotten.n_files,
        "content_sha256": content_sha256 or None,
    }
    db.insert("forgotten", [row])

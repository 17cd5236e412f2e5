"""The inbox: what lies there, since when, and what became of it, each item on its own.

The sensor looks once a tick. What is seen is compared with the table `arrivals`, so a tick costs
what is new; an item that cannot be read is its own row and holds nothing up. Opening an item is a
run's work (`steps.ingest`); this module says which are due, and reads afterwards what came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cj_pipeline.ids import id_for
from cj_pipeline.intake.folder import is_litter, shown
from cj_pipeline.storage.private_files import close_to_others
from cj_pipeline.store.session import Session

MAX_FILES = 20_000
MAX_OPENINGS = 50
"""At once, in one tick."""

REST_S = 60.0
"""For so long nothing may have changed in a folder whose judges cost money."""

LONGEST_PAUSE = timedelta(hours=1)
SEEN_EVERY = timedelta(minutes=10)
_EPOCH = datetime.fromtimestamp(0, UTC)
LOOK_AGAIN_S = 0.02
"""Of a tick, for items at rest: each is looked into again every few ticks."""

_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".icloud")
_UNFINISHED_STARTS = (".~lock.", "~$", ".syncthing.", ".sync-", ".owncloudsync", "._sync", "~wr")

State = Literal["settling", "waiting", "opened", "rejected", "changed", "forgotten"]


@dataclass(frozen=True)
class Arrival:
    """A row of `arrivals`: its columns are explained there."""

    name: str
    kind: str
    state: str
    batch_id: str
    fingerprint: str
    reason: str | None
    tries: int
    first_seen_at: datetime
    last_seen_at: datetime
    changed_at: datetime
    next_try_at: datetime | None
    place: str = "inbox"


@dataclass(frozen=True)
class Item:
    """What lies in the inbox under one name.

    Attributes:
        name: As it can be printed.
        place: Where it is.
        kind: `folder`, `zip`, or `other` for what cannot become a batch.
        top: Changes when something is added to it or taken out at its highest level.
        problem: Why it cannot become a batch.
    """

    name: str
    place: str | Path
    kind: str
    top: str
    problem: str | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.place)


@dataclass(frozen=True)
class Known:
    """What the store knows that decides about an item.

    Attributes:
        arrivals: The rows there are, by name.
        batches: Of the batches that items wait for: state, folder, problems and when it changed.
        forgotten: The names of batches that were removed for good.
    """

    arrivals: Mapping[str, Arrival]
    batches: Mapping[str, Mapping[str, Any]]
    forgotten: Collection[str]


@dataclass(frozen=True)
class Looked:
    """What a look at the inbox found.

    Attributes:
        rows: Rows to be written, since something about them changed.
        due: Items to be opened now, with their rows.
        opened: Items that are in the store and may leave the inbox.
        all_rows: Every row of an item that lies there.
    """

    rows: tuple[Arrival, ...]
    due: tuple[tuple[Item, Arrival], ...]
    opened: tuple[tuple[Item, Arrival], ...]
    all_rows: tuple[Arrival, ...]


def items_in(inbox: Path) -> list[Item]:
    """Return what lies in the inbox, sorted; dotted names are still being written."""
    found = []
    with os.scandir(inbox) as entries:
        for entry in entries:
            if not is_litter(entry.name):
                found.append(_item(entry))
    return sorted(found, key=lambda item: item.name)


def _item(entry: os.DirEntry[str]) -> Item:
    path, name, called = entry.path, entry.name, shown(entry.name)
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Item(called, path, "other", "", f"it cannot be read: {error.strerror}")
    top = f"{status.st_mtime_ns:x}"
    if called != name:
        told = "its name is not UTF-8: rename it"
        return Item(called, path, "other", top, told)
    if stat.S_ISLNK(status.st_mode):
        return Item(called, path, "other", top, "it is a link: put the folder itself there")
    if stat.S_ISDIR(status.st_mode):
        return Item(called, path, "folder", top)
    if stat.S_ISREG(status.st_mode) and name.lower().endswith(".zip"):
        return Item(called, path, "zip", f"{top}:{status.st_size:x}")
    return Item(called, path, "other", top, "it is no batch folder and no zip file of one")


def known_of(db: Session) -> Known:
    """Return what the store knows of the inbox."""
    rows = _arrivals(db)
    waiting = sorted({row.batch_id for row in rows if row.state == "waiting"})
    batches = db.rows(
        "SELECT batch_id, state, source_path, problems, updated_at FROM batches"
        " WHERE list_contains(?, batch_id)",
        [waiting],
    )
    gone = db.rows(
        "SELECT DISTINCT batch_id FROM forgotten WHERE essay_alias IS NULL AND batch_id NOT IN"
        " (SELECT batch_id FROM batches)"
    )
    return Known(
        arrivals={row.name: row for row in rows},
        batches={row["batch_id"]: row for row in batches},
        forgotten={row["batch_id"] for row in gone},
    )


def _arrivals(db: Session) -> list[Arrival]:
    """Return every row of `arrivals`; each tick reads them, and DuckDB is slow to make times of
    thousands of rows, so here they come as numbers.
    """
    seen = "first_seen_at", "last_seen_at", "changed_at", "next_try_at"
    as_numbers = ", ".join(f"epoch_us({name}) AS {name}" for name in seen)
    names = ", ".join(each.name for each in fields(Arrival))
    read = f"SELECT * REPLACE ({as_numbers}) FROM arrivals"  # noqa: S608 -- columns of ours
    rows = db.rows(f"SELECT {names} FROM ({read}) ORDER BY name")  # noqa: S608
    for row in rows:
        for name in seen:
            if row[name] is not None:
                row[name] = _EPOCH + timedelta(microseconds=row[name])
    return [Arrival(**row) for row in rows]


@dataclass(frozen=True)
class Look:
    """What a look at the inbox goes by.

    Attributes:
        known: What the store knows of it.
        now: The time.
        busy: The batches that have a run queued or going.
        rest_of: Returns for a folder how many seconds it must be at rest, and how many essays it
            must hold; None where it does not say.
    """

    known: Known
    now: datetime
    busy: Collection[str]
    rest_of: Callable[[Path], tuple[float, int | None]]

    def at(self, items: list[Item], *, begin_at: int = 0) -> tuple[Looked, int]:
        """Return what is to be done about the items, and where the next look is to begin.

        Args:
            items: What lies in the inbox.
            begin_at: Where looking into items at rest goes on.
        """
        until = time.monotonic() + LOOK_AGAIN_S
        rows: list[Arrival] = []
        due: list[tuple[Item, Arrival]] = []
        everything: list[tuple[Item, Arrival]] = []
        n_items, next_at = max(1, len(items)), begin_at
        for step in range(len(items)):
            item = items[(begin_at + step) % n_items]
            row = self.known.arrivals.get(item.name)
            if row is not None and _is_resting(row, item):
                if time.monotonic() > until:
                    everything.append((item, row))
                    continue
                next_at = begin_at + step + 1
            after = self._after(item, row)
            if _is_due(after, self.now) and len(due) < MAX_OPENINGS:
                after = _tried(after, self.now)
                due.append((item, after))
            everything.append((item, after))
            if row is None or _is_news(row, after):
                rows.append(after)
        opened = [(i, row) for i, row in everything if row.state == "opened"]
        looked = Looked(tuple(rows), tuple(due), tuple(opened), tuple(row for _, row in everything))
        return looked, next_at % n_items

    def _after(self, item: Item, row: Arrival | None) -> Arrival:
        """Return an item's row after a look at it."""
        digest, unfinished, problem = _looked_into(item)
        row = self._compared(item, row, f"{item.top}/{digest}")
        if problem is not None:
            return replace(row, state="rejected", reason=problem, next_try_at=None)
        if row.state not in {"settling", "waiting"}:
            return row
        if row.batch_id in self.known.forgotten and not row.tries:
            told = "its batch was removed for good; `cj execute FOLDER --again` takes it in again"
            return replace(row, state="forgotten", reason=told, next_try_at=None)
        if row.state == "settling":
            return self._settled(item, row, unfinished)
        return self._awaited(item, row)

    def _compared(self, item: Item, row: Arrival | None, mark: str) -> Arrival:
        """Return the row of an item as it is now; a fresh one where it is new or changed."""
        if row is not None and row.place == "inbox":
            if row.fingerprint == mark:
                return replace(row, last_seen_at=self.now)
            if row.state in {"opened", "changed"}:
                told = "its folder changed after it was opened; the batch stays as it was taken"
                row = replace(row, changed_at=self.now, last_seen_at=self.now)
                return replace(row, state="changed", reason=told, fingerprint=mark)
        return Arrival(
            name=item.name,
            kind=item.kind,
            state="settling",
            batch_id=id_for(item.path.stem if item.kind == "zip" else item.name, prefix="batch"),
            fingerprint=mark,
            reason=None,
            tries=0,
            first_seen_at=self.now if row is None else row.first_seen_at,
            last_seen_at=self.now,
            changed_at=self.now,
            next_try_at=None,
        )

    def _settled(self, item: Item, row: Arrival, unfinished: str | None) -> Arrival:
        if unfinished is not None:
            told = f"{shown(unfinished)} is still being written"
            return replace(row, reason=told, changed_at=self.now)
        if row.changed_at > self.now:  # by a clock that has been set back since
            row = replace(row, changed_at=self.now)
        if row.changed_at == self.now:
            return replace(row, reason="it has to be at rest first")
        rest_s, n_wanted = self.rest_of(item.path) if item.kind == "folder" else (0.0, None)
        if (self.now - row.changed_at).total_seconds() < rest_s:
            return replace(row, reason=f"it has to be at rest for {rest_s:g} s")
        n_there = _n_texts(item.path) if n_wanted is not None else None
        if n_wanted is not None and n_there is not None and n_there < n_wanted:
            told = f"it holds {n_there} of the {n_wanted} essays it is to have"
            return replace(row, reason=told)
        return replace(row, state="waiting", reason=None, next_try_at=self.now)

    def _awaited(self, item: Item, row: Arrival) -> Arrival:
        """Read what came of a try, and have it tried again when nothing did."""
        batch = self.known.batches.get(row.batch_id)
        is_in = batch is not None and batch["state"] != "rejected" and row.kind == "folder"
        if is_in and batch is not None and Path(batch["source_path"]) == item.path.resolve():
            return replace(row, state="opened", reason=None, next_try_at=None)
        put_off = (row.next_try_at or self.now) - self.now
        # No pause is longer: the clock has been set back since.
        if row.batch_id in self.busy or timedelta(0) < put_off <= LONGEST_PAUSE:
            return row
        return replace(row, next_try_at=self.now)


def _is_resting(row: Arrival, item: Item) -> bool:
    """Whether nothing is to be done about an item unless one of its files was changed."""
    is_same = row.place == "inbox" and row.fingerprint.startswith(f"{item.top}/")
    return is_same and row.state not in {"settling", "waiting"}


def _is_due(row: Arrival, now: datetime) -> bool:
    return row.state == "waiting" and row.next_try_at == now


def _tried(row: Arrival, now: datetime) -> Arrival:
    tries = row.tries + 1
    told = row.reason or "a run was asked for to open it"
    return replace(row, tries=tries, next_try_at=now + _pause(tries), reason=told)


def _is_news(before: Arrival, after: Arrival) -> bool:
    """Whether a row is to be written: that it was seen once more is no news for ten minutes."""
    is_same = replace(after, last_seen_at=before.last_seen_at) == before
    return not is_same or after.last_seen_at - before.last_seen_at >= SEEN_EVERY


def _looked_into(item: Item) -> tuple[str, str | None, str | None]:
    """Return an item's fingerprint, a file of it still being written, and why it is no batch."""
    if item.problem is not None or item.kind != "folder":
        return "", None, item.problem
    try:
        digest, unfinished = fingerprint(item.path)
    except OSError as error:
        return "", None, f"it cannot be read: {error.strerror}"
    return digest, unfinished, None


def write_arrivals(db: Session, rows: Collection[Arrival], known: Known) -> set[str]:
    """Keep rows of `arrivals` as they are now, and return the names of those that were kept.

    A row that a run has changed since it was read is left as the run wrote it.
    """
    there = {row.name: row for row in db.records(Arrival, "FROM arrivals")}
    kept = [row for row in rows if there.get(row.name) == known.arrivals.get(row.name)]
    if kept:
        db.insert("arrivals", kept, on_conflict="replace")
    return {row.name for row in kept}


def note_problems(db: Session, folder: Path, problems: Collection[str], *, may_pass: bool) -> None:
    """Keep why a folder of the inbox could not be opened, if it lies there.

    Args:
        db: The store, open for writing.
        folder: The folder that was to be opened.
        problems: Everything that is wrong with it.
        may_pass: Whether it may be opened later as it is: it is tried again then.
    """
    if folder.parent.name != "inbox":
        return
    db.execute(
        "UPDATE arrivals SET state = ?, reason = ? WHERE name = ? AND state = 'waiting'",
        ["waiting" if may_pass else "rejected", "; ".join(problems), shown(folder.name)],
    )


def moved_away(item: Item, ingested: Path) -> Path | None:
    """Move an opened item out of the inbox and return where it is; None where that cannot be.

    It came with the rights that others may have had to it, and is its owner's alone from now on.
    """
    ingested.mkdir(parents=True, exist_ok=True)
    target = ingested / item.path.name
    for number in range(2, 1_000):
        if not os.path.lexists(target):
            break
        target = ingested / f"{item.path.name}-{number}"
    try:
        item.path.rename(target)
    except OSError:
        return None
    if not target.is_symlink():
        with contextlib.suppress(OSError):  # a file of another account's
            close_to_others(target)
    return target


def fingerprint(folder: Path) -> tuple[str, str | None]:
    """Return what changes whenever a file of the folder does, and a file still being written.

    Raises:
        OSError: If the folder cannot be listed.
    """
    digest, unfinished = hashlib.sha256(), None
    for relative, status in sorted(islice(_files(folder, ""), MAX_FILES), key=lambda one: one[0]):
        is_file = stat.S_ISREG(status.st_mode)
        size, changed = (status.st_size, status.st_mtime_ns) if is_file else (0, 0)
        digest.update(f"{relative}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
        name = relative.rpartition("/")[2].lower()
        if name.endswith(_UNFINISHED) or name.startswith(_UNFINISHED_STARTS):
            unfinished = relative
    return digest.hexdigest()[:16], unfinished


def _files(folder: Path, lead: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # still moving: what is left gives another fingerprint next time
            yield f"{lead}{entry.name}", status
            if stat.S_ISDIR(status.st_mode):
                yield from _files(folder / entry.name, f"{lead}{entry.name}/")


def _n_texts(folder: Path) -> int | None:
    """Return how many essays a folder seems to hold; None where only reading it can tell."""
    places = [folder / name for name in ("essays", "students", "student_essays")]
    place = next((each for each in places if each.is_dir()), None)
    if place is None:
        return None
    anchors = folder / "anchors"
    names = [entry for entry in place.iterdir() if not is_litter(entry.name)]
    if anchors.is_dir():
        names += [entry for entry in anchors.iterdir() if entry.suffix.lower() != ".csv"]
    elif any(folder.glob("anchors.*")):
        return None
    return len(names)


def _pause(tries: int) -> timedelta:
    return min(timedelta(seconds=30 * 4 ** min(tries - 1, 5)), LONGEST_PAUSE)

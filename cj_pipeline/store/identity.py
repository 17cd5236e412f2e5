"""Which store this is: an identity made with it, and the place where it lies.

A submission key ends with the identity of the store that made it, so that a store can tell its own
jobs at a provider from those of others. A home that is found elsewhere than where it was left is a
copy: it begins an identity of its own. A restored backup and a forgotten batch begin a new epoch
of the same store: either does not know every job that this store has made.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog

from cj_pipeline.batch.comparisons import store_of
from cj_pipeline.store.base import Place, Store
from cj_pipeline.store.session import Session

log = structlog.get_logger()

STORE_DIGITS, EPOCH_DIGITS = 16, 8
"""What ends a submission key, in hexadecimal digits."""

LOOK_BACK = timedelta(days=45)
"""No provider keeps results longer: what was made before has nothing left to be found."""

Reason = Literal["made", "restored", "copied", "forgotten", "moved"]


@dataclass(frozen=True)
class Identity:
    """A store as the ends of its submission keys name it.

    Attributes:
        store_id: 16 hexadecimal digits, its own alone.
        epoch: 8 hexadecimal digits.
        ancestors: The stores that it was copied from.
        copied_at: When it was found to be a copy; None where it is none.
        jobs_since: From when on providers may have jobs of it that it does not know; None where
            they have none.
        jobs_until: Until when such jobs may have been made.
    """

    store_id: str
    epoch: str
    ancestors: frozenset[str] = frozenset()
    copied_at: datetime | None = None
    jobs_since: datetime | None = None
    jobs_until: datetime | None = None

    @property
    def suffix(self) -> str:
        """What ends the keys it makes."""
        return self.store_id + self.epoch

    def made(self, key: str) -> bool:
        """Whether this store made a submission key."""
        return store_of(key) == self.store_id

    def knows(self, key: str) -> bool:
        """Whether this store, or one that it was copied from, made a submission key."""
        return store_of(key) in self.ancestors | {self.store_id}

    def may_stop(self, key: str, intended_at: datetime) -> bool:
        """Whether a job of the ledger is this store's to cancel, and its files to delete.

        Args:
            key: Its submission key. One from before keys bore an identity is this store's, unless
                it has been copied since.
            intended_at: When it was recorded.
        """
        if self.knows(key):
            return self.made(key)
        return self.copied_at is None or intended_at >= self.copied_at


UNKNOWN = Identity("0" * STORE_DIGITS, "0" * EPOCH_DIGITS)
"""Of a store that has never sent anything."""


def known_identity(db: Session, now: datetime) -> Identity:
    """Return the identity on record, wherever the store lies now; `UNKNOWN` where there is none."""
    return _identity(_epochs(db), now)


def settle_identity(store: Store, now: datetime) -> Identity:
    """Return the store's identity; one that is new, or a copy, begins one here."""
    place = store.place()
    with store.read() as db:
        epochs = _epochs(db)
    if not _is_settled(epochs, place):
        with store.write() as db:
            epochs = _epochs(db)
            if not _is_settled(epochs, place):
                reason: Reason = "copied" if epochs else "made"
                begin_epoch(db, reason, place, now)
                epochs = _epochs(db)
                if reason == "copied":
                    log.warning("store_is_a_copy", found_at=str(place), left_at=_place(epochs[-2]))
    return _identity(epochs, now)


def begin_epoch(
    db: Session,
    reason: Reason,
    place: Place | None,
    now: datetime,
    *,
    jobs_since: datetime | None = None,
    jobs_until: datetime | None = None,
    store_id: str | None = None,
) -> None:
    """Record a beginning of the store, in the caller's transaction.

    Args:
        db: A session that may write.
        reason: Why it begins. A copy gets an identity of its own, every other keeps the one it has.
        place: Where the store lies; None where it stays where it was.
        now: By the pipeline's clock.
        jobs_since: From when on providers may have jobs that the store does not know; by default
            since the newest it knows, where it was copied or restored.
        jobs_until: Until when; by default now, likewise.
        store_id: The identity of a copy, where it had one before; by default one that is drawn.
    """
    epochs = _epochs(db)
    last = epochs[-1] if epochs else None
    if reason in {"copied", "restored"}:
        jobs_since = jobs_since or _newest_known(db) or now - LOOK_BACK
        jobs_until = jobs_until or now
    if last is not None and reason != "copied":
        store_id = last["store_id"]
    row = {
        "number": len(epochs) + 1,
        "store_id": store_id or secrets.token_hex(STORE_DIGITS // 2),
        "epoch": secrets.token_hex(EPOCH_DIGITS // 2),
        "reason": reason,
        "host": place.host if place else last and last["host"],
        "folder": place.folder if place else last and last["folder"],
        "jobs_since": jobs_since,
        "jobs_until": jobs_until,
        "begun_at": now,
    }
    db.insert("store_epochs", [row])
    log.info("store_epoch", reason=reason, store_id=row["store_id"], epoch=row["epoch"])


def begin_epoch_of_restored(
    db: Session, place: Place | None, now: datetime, replaced: Sequence[dict[str, Any]]
) -> None:
    """Begin an epoch in a backup that is put in place, in the caller's transaction.

    Args:
        db: The backup, to be written.
        place: Where it is put.
        now: By the pipeline's clock.
        replaced: The epochs of the store whose place it takes: that store goes on, and jobs that it
            made since the backup are its own. Of another home's backup it becomes a copy.
    """
    epochs = _epochs(db)
    own = {epoch["store_id"] for epoch in replaced}
    if replaced and (not epochs or epochs[-1]["store_id"] in own):
        db.insert("store_epochs", replaced, on_conflict="replace")
        begin_epoch(db, "restored", place, now)
    elif epochs and not _is_settled(epochs, place):
        own_id = replaced[-1]["store_id"] if replaced else None
        begin_epoch(db, "copied", place, now, store_id=own_id)
    else:
        begin_epoch(db, "restored", place, now)


def epochs_of(store: Store) -> list[dict[str, Any]]:
    """Return a store's epochs as `begin_epoch_of_restored` takes them."""
    with store.read() as db:
        return _epochs(db)


def keep_identity(store: Store, now: datetime) -> bool:
    """Let a home that was moved, and not copied, be the store it was; False where it was not moved.

    To be said only where nothing is left at the old place: two stores of one identity would cancel
    each other's jobs.
    """
    place = store.place()
    with store.write() as db:
        epochs = _epochs(db)
        if not epochs or place is None:
            return False
        last = epochs[-1]
        if last["reason"] == "copied" and len(epochs) > 1:
            before = epochs[-2]
        elif not _is_settled(epochs, place):
            before = last
        else:
            return False
        row = before | {
            "number": len(epochs) + 1,
            "epoch": secrets.token_hex(EPOCH_DIGITS // 2),
            "reason": "moved",
            "host": place.host,
            "folder": place.folder,
            "begun_at": now,
        }
        db.insert("store_epochs", [row])
    return True


def _epochs(db: Session) -> list[dict[str, Any]]:
    return db.rows("FROM store_epochs ORDER BY number")


def _is_settled(epochs: Sequence[dict[str, Any]], place: Place | None) -> bool:
    if not epochs:
        return False
    return place is None or (epochs[-1]["host"], epochs[-1]["folder"]) == (place.host, place.folder)


def _place(epoch: dict[str, Any]) -> str:
    return f"{epoch['folder']} on {epoch['host']}"


def _identity(epochs: Sequence[dict[str, Any]], now: datetime) -> Identity:
    if not epochs:
        return UNKNOWN
    last = epochs[-1]
    own = last["store_id"]
    recent = [e for e in epochs if e["jobs_since"] and now - e["begun_at"] < LOOK_BACK]
    copied = [e["begun_at"] for e in epochs if e["reason"] == "copied" and e["store_id"] == own]
    return Identity(
        store_id=own,
        epoch=last["epoch"],
        ancestors=frozenset(e["store_id"] for e in epochs) - {own},
        copied_at=max(copied, default=None),
        jobs_since=min((e["jobs_since"] for e in recent), default=None),
        jobs_until=max((e["jobs_until"] for e in recent if e["jobs_until"]), default=None),
    )


def _newest_known(db: Session) -> datetime | None:
    """Return when the store last recorded a job or a batch: what it does not know is younger."""
    row = db.one(
        "SELECT max(moment) AS newest FROM (SELECT max(intended_at) AS moment FROM provider_jobs"
        " UNION ALL SELECT max(created_at) FROM batches)"
    )
    newest: datetime | None = row["newest"] if row else None
    return newest

"""What is done with items of the inbox beside opening them: unpacking, moving out, trying again."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from cj_pipeline.intake.inbox import Arrival, Item, moved_away
from cj_pipeline.intake.zip_folder import ZipProblemsError, unpack
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session


def arrivals(db: Session) -> list[Arrival]:
    """Return every item that was put into the inbox, the latest first."""
    return db.records(Arrival, "FROM arrivals ORDER BY first_seen_at DESC, name")


def retry(db: Session, name: str, now: datetime) -> bool:
    """Have an item opened again at the next tick; False where there is none of this name."""
    found = db.rows("SELECT 1 FROM arrivals WHERE name = ?", [name])
    db.execute(
        "UPDATE arrivals SET state = 'waiting', tries = greatest(tries, 1), next_try_at = ?,"
        " reason = NULL WHERE name = ?",
        [now, name],
    )
    return bool(found)


def unpack_arrival(runtime: Runtime, item: Item, row: Arrival) -> None:
    """Unpack a zip file of the inbox into a folder beside it, and move the zip file out.

    What is wrong with it is kept in its row; a folder of its name that is there already stays.
    """
    staged = runtime.inbox / f".unpacking-{secrets.token_hex(8)}"
    target = runtime.inbox / item.path.stem
    try:
        staged.mkdir(mode=0o700)
        with item.path.open("rb") as file:
            top = unpack(file, staged)
        if target.exists():
            msg = f"there is a folder {target.name} in the inbox already: rename the zip file"
            raise ZipProblemsError(msg)
        (staged / top if top else staged).rename(target)
    except (ZipProblemsError, OSError) as error:
        problems = error.problems if isinstance(error, ZipProblemsError) else ()
        told = "; ".join([str(error), *problems])
        _keep(runtime, replace(row, state="rejected", reason=told, next_try_at=None))
        return
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    place = moved_away(item, runtime.ingested)
    told = f"unpacked as {target.name}"
    _keep(
        runtime,
        replace(
            row,
            state="opened",
            reason=told,
            next_try_at=None,
            place=str(place) if place is not None else "inbox",
        ),
    )


def move_opened(runtime: Runtime, opened: Iterable[tuple[Item, Arrival]]) -> None:
    """Move folders that are in the store out of the inbox; where that cannot be, they stay."""
    for item, row in opened:
        if row.place != "inbox" or item.kind != "folder":
            continue
        before = str(item.path.resolve())
        place = moved_away(item, runtime.ingested)
        if place is None:
            continue
        with runtime.store.write() as db:
            db.execute(
                "UPDATE batches SET source_path = ? WHERE batch_id = ? AND source_path = ?",
                [str(place.resolve()), row.batch_id, before],
            )
            db.insert("arrivals", [replace(row, place=str(place))], on_conflict="replace")


def _keep(runtime: Runtime, row: Arrival) -> None:
    with runtime.store.write() as db:
        db.insert("arrivals", [row], on_conflict="replace")

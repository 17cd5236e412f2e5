"""Telling people outside: a batch has ended, was rejected or graded, or waits for somebody.

Off until `notify:` in `CJ_HOME/installation.yaml` names an address. What is due is read from the
store's rows and written down as `notifications` before anything is sent, one row per event and
address, so that a kill loses nothing. A delivery whose end is not known is sent again with the same
id, by which its receiver knows it; every other is sent once. `delivery` does the sending.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from cj_pipeline.errors import CJError
from cj_pipeline.installation import read_installation
from cj_pipeline.operations.delivery import Address, addresses, deliver
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session
from cj_pipeline.text import excerpt

log = structlog.get_logger()

MAX_TRIES = 12
"""With pauses from 30 s to 6 h these cover more than a day."""

FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 6 * 3600.0

UNKNOWN_AFTER = timedelta(minutes=10)
"""A delivery that was begun and never recorded as done is sent again after this, by its id."""

MAX_PER_CALL = 50
_MAX_REASON = 500

_EVENTS = """
SELECT 'ended:' || e.batch_id AS event, e.batch_id, 'ended' AS kind, e.recorded_at,
       {'outcome': e.outcome, 'n_done': e.n_done, 'cost_usd': e.cost_usd}::JSON AS details
FROM progress_events e WHERE e.kind = 'ended'
UNION ALL
SELECT concat_ws(':', 'checkpoint', e.batch_id, e.sequence), e.batch_id, 'checkpoint',
       e.recorded_at, {'n_done': e.n_done, 'share_done': e.share_done}::JSON
FROM progress_events e WHERE e.kind = 'checkpoint'
UNION ALL
SELECT concat_ws(':', 'rejected', b.batch_id, b.content_sha256, epoch(b.updated_at)), b.batch_id,
       'rejected', b.updated_at, {'problems': b.problems}::JSON
FROM batches b WHERE b.state = 'rejected'
UNION ALL
SELECT concat_ws(':', 'graded', g.batch_id, g.revision), g.batch_id, 'graded', g.projected_at,
       {'revision': g.revision, 'is_graded': g.is_graded}::JSON
FROM grading_reports g JOIN batches b USING (batch_id)
WHERE coalesce(b.settings->>'release', 'automatic') <> 'needs_sign_off' OR NOT g.is_graded
UNION ALL
-- Grades that need a sign-off are told of once a person has released them.
SELECT concat_ws(':', 'graded', r.batch_id, r.revision, r.number), r.batch_id, 'graded',
       r.released_at, {'revision': r.revision, 'is_graded': TRUE}::JSON
FROM release_events r WHERE r.kind = 'released'
UNION ALL
SELECT concat_ws(':', 'waiting', w.batch_id, w.waiting_for, md5(w.reason)), w.batch_id, 'waiting',
       $now, {'waiting_for': w.waiting_for, 'reason': w.reason}::JSON
FROM v_batch_waiting w WHERE w.waiting_for IN ('key', 'credit', 'person', 'sign_off')
"""


@dataclass(frozen=True)
class Told:
    """What one call did."""

    n_recorded: int
    n_sent: int
    n_failed: int


def notify(
    runtime: Runtime,
    *,
    at_most_s: float = 30.0,
    deliver: Callable[[Address, str, dict[str, Any], datetime], None] = deliver,
    monotonic: Callable[[], float] = time.monotonic,
) -> Told:
    """Record the notifications that are due and send those whose time has come.

    Args:
        runtime: The pipeline's connections.
        at_most_s: After how long no further one is begun; the next call goes on.
        deliver: What sends one; for tests.
        monotonic: What that time is measured by.

    Raises:
        SettingsError: If `installation.yaml` cannot be used.
    """
    told = addresses(read_installation(runtime.home).notify, runtime.environment)
    if not told:
        return Told(0, 0, 0)
    now = runtime.clock()
    with runtime.store.write() as db:
        n_recorded = _record(db, told, now)
    by_key = {address.key: address for address in told}
    until = monotonic() + at_most_s
    n_sent = n_failed = 0
    for row in _begin(runtime, by_key, now):
        address = by_key[row["notification_id"].rpartition("@")[2]]
        error = _try(deliver, address, row, runtime.clock())
        _end(runtime, row, error)
        n_sent, n_failed = n_sent + (error is None), n_failed + (error is not None)
        if monotonic() > until:
            break
    return Told(n_recorded, n_sent, n_failed)


def send_test(runtime: Runtime) -> list[str | None]:
    """Send each address a notification of the kind `test`; return what went wrong, by address.

    Raises:
        SettingsError: If `installation.yaml` cannot be used.
    """
    told = addresses(read_installation(runtime.home).notify, runtime.environment)
    now = runtime.clock()
    problems: list[str | None] = []
    for address in told:
        key = f"test:{now.isoformat()}@{address.key}"
        body = {"id": key, "batch_id": "none", "kind": "test", "happened_at": now.isoformat()}
        try:
            deliver(address, key, body, now)
        except CJError as error:
            problems.append(str(error))
        else:
            problems.append(None)
    return problems


def _record(db: Session, told: Sequence[Address], now: datetime) -> int:
    known = {
        row["address"]: row["since"]
        for row in db.rows("SELECT address, since FROM notification_addresses")
    }
    new = [address.key for address in told if address.key not in known]
    db.insert("notification_addresses", [{"address": key, "since": now} for key in new])
    rows: list[dict[str, Any]] = []
    events = db.rows(_EVENTS, {"now": now})
    recorded = {row["id"] for row in db.rows("SELECT notification_id AS id FROM notifications")}
    for address in told:
        since = known.get(address.key, now)
        for event in events:
            key = f"{event['event']}@{address.key}"
            if event["kind"] in address.events and event["recorded_at"] >= since:
                rows += [] if key in recorded else [_row(key, event, now)]
    db.insert("notifications", rows, on_conflict="ignore")
    return len(rows)


def _row(key: str, event: dict[str, Any], now: datetime) -> dict[str, Any]:
    details = event["details"]
    if isinstance(details, str):
        details = json.loads(details)
    body = {
        "id": key,
        "batch_id": event["batch_id"],
        "kind": event["kind"],
        "happened_at": event["recorded_at"].isoformat(),
        **details,
    }
    return {
        "notification_id": key,
        "batch_id": event["batch_id"],
        "kind": event["kind"],
        "body": body,
        "state": "pending",
        "n_tries": 0,
        "error": None,
        "recorded_at": now,
        "next_try_at": now,
        "sent_at": None,
    }


def _begin(runtime: Runtime, by_key: dict[str, Address], now: datetime) -> Iterator[dict[str, Any]]:
    """Yield what is due, each marked as begun before it is handed out."""
    with runtime.store.read() as db:
        due = db.rows(
            "SELECT * FROM notifications WHERE state IN ('pending', 'sending')"
            # No pause is so long: the clock has been set back since.
            " AND (next_try_at <= $now OR next_try_at > $farthest)"
            " ORDER BY recorded_at, notification_id LIMIT $most",
            {
                "now": now,
                "farthest": now + timedelta(seconds=2 * LONGEST_PAUSE_S),
                "most": MAX_PER_CALL,
            },
        )
    for row in due:
        if row["notification_id"].rpartition("@")[2] not in by_key:
            continue  # its address is no longer told; the row says so by staying pending
        with runtime.store.write() as db:
            # Another process may have begun it since.
            still = db.one(
                "SELECT n_tries FROM notifications WHERE notification_id = ? AND n_tries = ?"
                " AND state IN ('pending', 'sending')",
                [row["notification_id"], row["n_tries"]],
            )
            if still is None:
                continue
            db.execute(
                "UPDATE notifications SET state = 'sending', n_tries = n_tries + 1,"
                " next_try_at = ? WHERE notification_id = ?",
                [runtime.clock() + UNKNOWN_AFTER, row["notification_id"]],
            )
        yield row | {"n_tries": row["n_tries"] + 1}


def _try(
    deliver: Callable[[Address, str, dict[str, Any], datetime], None],
    address: Address,
    row: dict[str, Any],
    now: datetime,
) -> str | None:
    body = row["body"] if isinstance(row["body"], dict) else json.loads(row["body"])
    try:
        deliver(address, row["notification_id"], body, now)
    except CJError as error:
        log.warning("notification_failed", kind=row["kind"], batch_id=row["batch_id"])
        return excerpt(str(error), _MAX_REASON)
    log.info("notification_sent", kind=row["kind"], batch_id=row["batch_id"])
    return None


def _end(runtime: Runtime, row: dict[str, Any], error: str | None) -> None:
    now, key, n_tries = runtime.clock(), row["notification_id"], row["n_tries"]
    with runtime.store.write() as db:
        if error is None:
            db.execute(
                "UPDATE notifications SET state = 'sent', sent_at = ?, error = NULL,"
                " next_try_at = NULL WHERE notification_id = ?",
                [now, key],
            )
            return
        pause = min(FIRST_PAUSE_S * 3 ** (n_tries - 1), LONGEST_PAUSE_S)
        state = "given_up" if n_tries >= MAX_TRIES else "pending"
        db.execute(
            "UPDATE notifications SET state = ?, error = ?, next_try_at = ?"
            " WHERE notification_id = ?",
            [state, error, now + timedelta(seconds=pause), key],
        )

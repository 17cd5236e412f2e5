"""`cj queue`: the single calls that wait, and what keeps them waiting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import open_store


@reads("cj queue 1")
def queue() -> None:
    """Show which batches' single calls wait, for how long, and which models rest."""
    from cj_pipeline.queries.overview import put_off

    with open_store().read() as db:
        waiting = db.rows("FROM v_live_queue ORDER BY batch_id, judge_id")
        postponed = put_off(db)
        resting = db.rows("FROM circuit_breakers WHERE state <> 'closed' ORDER BY lane")
    answer(
        waiting=waiting,
        put_off=[{"batch_id": batch_id, "reason": reason} for batch_id, reason in postponed],
        resting=[
            {
                name: row[name]
                for name in ("provider", "model", "state", "n_failures", "open_until", "last_error")
            }
            for row in resting
        ],
    )
    if not waiting:
        console.print("No single call waits.")
    else:
        console.print(
            tables.table(
                "Single calls",
                (
                    "batch",
                    "priority",
                    "model",
                    "waiting",
                    "answered",
                    "since",
                    "mean wait s",
                    "put off until",
                    "expires",
                ),
                [_row(row) for row in waiting],
            )
        )
    for batch_id, reason in postponed:
        console.print(f"{batch_id}: {reason}", markup=False, highlight=False)
    for row in resting:
        console.print(
            f"{row['provider']} {row['model']} is {row['state']} after {row['n_failures']}"
            f" failures in a row, until {_moment(row['open_until'])}: {row['last_error']}",
            markup=False,
        )


def _row(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        row["batch_id"],
        row["priority"],
        row["model"],
        row["n_waiting"],
        row["n_answered"],
        _moment(row["waiting_since"]),
        tables.figure(row["mean_wait_s"], ".1f"),
        _moment(row["put_off_until"]),
        _moment(row["expires_at"]),
    )


def _moment(moment: datetime | None) -> str:
    return "–" if moment is None else moment.strftime("%H:%M:%S")

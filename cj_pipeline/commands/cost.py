"""`cj cost`: what batches were expected to cost, what was reserved for them, and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import open_store

if TYPE_CHECKING:
    from cj_pipeline.store.session import Session

BatchOrAll = Annotated[
    str | None,
    typer.Argument(
        help="A batch: its judges and provider jobs; all batches if none.",
        autocompletion=completion.batch_names,
    ),
]

_FIGURES = (
    ("estimated", "estimated_usd"),
    ("reserved", "reserved_usd"),
    ("billed", "billed_usd"),
    ("in doubt", "possible_usd"),
    ("counted", "provider_usd"),
    ("unexplained", "unexplained_usd"),
)
"""Columns as people see them, in USD, and as the views call them."""

_MEANING = (
    "In doubt: may have been paid for as well. Counted: by the provider itself, for jobs where "
    "it reports a total; unexplained: what neither bill nor rows in doubt explain of that."
)


@reads("cj cost 1")
def cost(batch: BatchOrAll = None) -> None:
    """Show estimated, reserved and billed side by side, with the providers' own counts."""
    from datetime import UTC, datetime

    from cj_pipeline.provider_jobs.leftovers import count_leftovers, describe_leftovers
    from cj_pipeline.queries.overview import batch_overview

    with open_store().read() as db:
        if batch is None:
            rows = db.rows("SELECT * FROM v_batch_costs ORDER BY batch_id")
            answer(batches=rows, judges=[], jobs=[])
            shown = [_table("USD by batch", ("batch",), ("batch_id",), rows)]
        else:
            batch_overview(db, batch)  # says so if there is no such batch
            shown = _tables_of_batch(db, batch)
        left = describe_leftovers(count_leftovers(db, datetime.now(UTC), batch))
    answer(left_behind=left or None)
    for each in shown:
        console.print(each)
    console.print(_MEANING)
    if left:
        console.print(left)


def _tables_of_batch(db: Session, batch: str) -> list[Any]:
    from cj_pipeline.queries.spending import SENT_AS

    judges = db.rows("SELECT * FROM v_judge_costs WHERE batch_id = ? ORDER BY judge", [batch])
    jobs = db.rows(
        "SELECT *, submission_key[:8] AS job FROM v_costs WHERE batch_id = ?"
        " ORDER BY wave, intended_at, submission_key",
        [batch],
    )
    total = db.rows("SELECT *, '(all)' AS judge FROM v_batch_costs WHERE batch_id = ?", [batch])
    answer(
        batches=db.rows("SELECT * FROM v_batch_costs WHERE batch_id = ?", [batch]),
        judges=judges,
        jobs=jobs,
    )
    return [
        _table(
            f"USD by judge, {batch}",
            ("judge", "jobs", "requests"),
            ("judge", "n_jobs", "n_requests"),
            [*judges, *(total if len(judges) > 1 else [])],
        ),
        _table(
            f"USD by provider job, {batch}",
            ("wave", "job", "judge", "as", "state", "n"),
            ("wave", "job", "judge", "sent_as", "state", "n_requests"),
            [
                job | {"sent_as": "canary" if job["is_canary"] else SENT_AS[job["batching_mode"]]}
                for job in jobs
            ],
        ),
    ]


def _table(
    title: str, headings: Sequence[str], names: Sequence[str], rows: Sequence[dict[str, Any]]
) -> Any:
    shown = [
        (*(row[n] for n in names), *(tables.figure(row[name], ".6f") for _, name in _FIGURES))
        for row in rows
    ]
    return tables.table(title, (*headings, *(heading for heading, _ in _FIGURES)), shown)

"""`cj doctor` and `cj reparse`: what was paid for, checked and reparsed from a terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from cj_pipeline.commands.terminal import tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.arguments import BatchName
from cj_pipeline.commands.terminal.console import console
from cj_pipeline.commands.terminal.home import open_runtime


@reads("cj doctor 1")
def doctor(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Adopt jobs in doubt, collect what is about to be deleted, cancel duplicates,"
            " delete files left behind.",
        ),
    ] = False,
    also_cancel: Annotated[
        bool,
        typer.Option(
            "--also-cancel",
            help="With --fix: also cancel stalled jobs (their unfinished rows are retried) and "
            "jobs whose submission key no batch of this store has.",
        ),
    ] = False,
    resubmit: Annotated[
        str | None,
        typer.Option(
            "--resubmit",
            metavar="JOB",
            help="Buy the pairs of this job again whose answers may have been paid for and never"
            " came. Its id at the provider, or how its submission key begins.",
        ),
    ] = None,
) -> None:
    """Compare the ledger with the providers; safe to run at any time.

    Ends with 1 while they disagree. Jobs of other stores in the same accounts are listed apart:
    they are no disagreement, and nothing touches them.
    """
    if resubmit is not None:
        _resubmit(resubmit)
        return
    from cj_pipeline.operations.reconcile import examine, repair
    from cj_pipeline.provider_jobs.leftovers import delete_leftovers

    runtime = open_runtime()
    if fix and (n_gone := delete_leftovers(runtime, due_only=False)):
        console.print(f"{n_gone} files and jobs that nothing needs were deleted at the providers.")
    found = examine(runtime)
    others = [finding for finding in found if finding.is_of_another_store]
    findings = [finding for finding in found if not finding.is_of_another_store]
    answer(disagreements=findings, of_other_stores=others, fixed=[])
    if others:
        console.print(tables.findings_table(others, title="Of other stores, left alone"))
    if not findings:
        console.print("Ledger and providers agree.")
        return
    console.print(tables.findings_table(findings))
    chosen = [f for f in findings if f.is_mendable and (also_cancel or not f.needs_consent)]
    if not fix:
        if chosen:
            console.print(f"`cj doctor --fix` fixes {len(chosen)} of {len(findings)}.")
        raise typer.Exit(1)
    fixed = repair(runtime, chosen, with_consent=also_cancel)
    answer(fixed=fixed)
    console.print(f"Fixed {len(fixed)} of {len(chosen)}.")
    for finding in chosen:
        if finding not in fixed:
            console.print(f"Not fixed: {finding.what}", markup=False, highlight=False)
    if len(fixed) < len(findings):
        raise typer.Exit(1)


def _resubmit(job: str) -> None:
    from cj_pipeline.operations.resubmit import resubmit

    found = resubmit(open_runtime(), job)
    answer(resubmitted=found)
    console.print(
        f"{found.batch_id}: {found.n_pairs} comparisons are requested again. What their first"
        f" request may have cost, {found.in_doubt_usd:.4f} USD, stays in doubt. `cj execute` the"
        " batch again, or let the sensors take it on.",
        markup=False,
        highlight=False,
    )


@reads("cj reparse 1")
def reparse(
    batch: BatchName,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store what changes; otherwise it is only shown.")
    ] = False,
) -> None:
    """Reparse a batch's stored callbacks with the current parser; nothing is requested or paid."""
    from cj_pipeline.operations.reparse import reparse as reparse_callbacks

    found = reparse_callbacks(open_runtime(), batch, apply=apply)
    answer(batch_id=batch, found=found)
    console.print(
        f"{batch}: {found.n_read} callbacks read, {len(found.changes)} requests and"
        f" {found.n_comparisons} comparisons {'changed' if apply else 'would change'}.",
        markup=False,
        highlight=False,
    )
    if found.n_unread:
        console.print(
            f"{found.n_unread} callbacks are no longer stored; their outcomes stay as they are."
        )
    if not found.changes and not found.n_comparisons:
        return
    console.print(
        tables.table(
            "What changes",
            ("from → to", "requests"),
            sorted(found.kinds.items()),
        )
    )
    if not apply:
        console.print(
            "Nothing was changed: `--apply` stores the new outcomes and keeps the old ones."
        )
        return
    console.print(
        f"The batch: {found.state}" + (f", {found.end_reason}." if found.end_reason else ".")
    )
    if found.could_go_on:
        console.print(
            "With these verdicts the batch would have gone on; it stays ended. Submit its "
            "folder under another name to request the rest."
        )

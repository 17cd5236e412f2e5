"""`cj store ...` and `cj forget`: looking after the store from a terminal."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cj_pipeline.commands import tables
from cj_pipeline.commands.console import console
from cj_pipeline.commands.home import home_folder, open_store

if TYPE_CHECKING:
    from cj_pipeline.operations.erase import Forgotten


def migrate() -> None:
    """Bring the store's schema up to date."""
    from cj_pipeline.store.maintenance import migrate_store

    applied = migrate_store(open_store())
    console.print(f"Applied: {', '.join(applied) or 'nothing, it is up to date'}.")


def check(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Close the home to others, and remove what killed commands left."
        ),
    ] = False,
) -> None:
    """Read every value once and say everything that is wrong."""
    from cj_pipeline.store.maintenance import check_store, mend_store

    opened = open_store()
    if fix:
        for path in mend_store(opened):
            console.print(f"Put right: {path}", markup=False, soft_wrap=True)
    found = check_store(opened)
    console.print(
        tables.table("Rows", ("table", "rows"), sorted(found.rows.items())),
        f"Schema version {found.schema_version}; live file {found.live_bytes:,} bytes,"
        f" published copy {found.published_bytes:,} bytes.",
    )
    for problem in found.problems:
        console.print(problem, markup=False)
    if found.problems:
        raise typer.Exit(1)
    console.print("Nothing is wrong.")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9494,
) -> None:
    """Serve the store to many machines; CJ_STORE_TOKEN is what they must present."""
    from cj_pipeline.store.quack_store import serve as serve_store

    home, token = home_folder(), os.environ.get("CJ_STORE_TOKEN", "")
    with serve_store(home, token, host=host, port=port) as address:
        console.print(f"Set CJ_STORE={address} elsewhere. Ctrl-C ends it.", soft_wrap=True)
        while True:
            time.sleep(3600)


def backup(
    target: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
) -> None:
    """Write a whole copy of the store to a file, and see that it opens."""
    from cj_pipeline.store.maintenance import backup_store

    written = backup_store(open_store(), target)
    console.print(f"Backed up to {written}.", markup=False, soft_wrap=True)


def restore(source: Annotated[Path, typer.Argument(help="A backup.", exists=True)]) -> None:
    """Replace the live file by a backup; the old live file is kept."""
    from cj_pipeline.store.maintenance import restore_store

    aside = restore_store(open_store(), source, now=datetime.now(UTC))
    kept = f" The old file is kept as {aside}." if aside else ""
    console.print(f"Restored from {source}.{kept}", markup=False, soft_wrap=True)


def compact() -> None:
    """Rewrite the live file without the space of deleted rows."""
    from cj_pipeline.store.maintenance import compact_store

    done = compact_store(open_store())
    console.print(f"From {done.bytes_before:,} to {done.bytes_after:,} bytes.")


def archive(
    older_than_days: Annotated[
        float, typer.Option(min=0, help="Of batches that ended so long ago.")
    ] = 30.0,
    delete_after_days: Annotated[
        float | None, typer.Option(min=0, help="Delete archives written so long ago.")
    ] = None,
) -> None:
    """Move the raw callbacks of old batches into Parquet files."""
    from cj_pipeline.store.maintenance import archive_callbacks, delete_archives

    now, opened = datetime.now(UTC), open_store()
    written = archive_callbacks(opened, ended_before=now - timedelta(days=older_than_days))
    console.print(f"{len(written)} batches archived.")
    if delete_after_days is not None:
        gone = delete_archives(opened, written_before=now - timedelta(days=delete_after_days))
        console.print(f"{len(gone)} archives deleted.")


def forget(
    batch: Annotated[str, typer.Argument(help="A batch's name.")],
    essay_id: Annotated[
        str | None, typer.Argument(help="One of its essays; the whole batch if left out.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove a batch's or an essay's texts, callbacks and exports for good."""
    from cj_pipeline.operations.erase import forget_batch, forget_essay

    what = f"essay {essay_id} of batch {batch}" if essay_id else f"batch {batch}"
    if not yes:
        typer.confirm(f"Remove {what} for good?", abort=True)
    now = datetime.now(UTC)
    forgotten: Forgotten = (
        forget_essay(open_store(), batch, essay_id, now=now)
        if essay_id
        else forget_batch(open_store(), batch, now=now)
    )
    console.print(
        f"{what}: {forgotten.n_rows} rows and {len(forgotten.files)} files removed; an audit "
        "line is kept. Delete your own backups yourself.",
        markup=False,
        soft_wrap=True,
    )

"""`cj store ...` and `cj forget`: looking after the store from a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cj_pipeline.commands.terminal import completion, tables
from cj_pipeline.commands.terminal.answers import answer, reads
from cj_pipeline.commands.terminal.console import confirm, console, errors
from cj_pipeline.commands.terminal.home import home_folder, open_published_files, open_store
from cj_pipeline.errors import StoreError

if TYPE_CHECKING:
    from cj_pipeline.operations.personal_data.erase import Forgotten
    from cj_pipeline.store.file_store import FileStore
    from cj_pipeline.store.session import Session


def migrate() -> None:
    """Bring the store's schema up to date."""
    from cj_pipeline.store.maintenance import migrate_store

    applied = migrate_store(_own_file())
    console.print(f"Applied: {', '.join(applied) or 'nothing, it is up to date'}.")


@reads("cj store check 1")
def check(
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Close the home to others, and remove what killed commands left."
        ),
    ] = False,
) -> None:
    """Read every value once and say everything that is wrong."""
    from cj_pipeline.operations.personal_data.erase import finish_erasures
    from cj_pipeline.store.maintenance import check_store, mend_store

    opened = _own_file()
    if fix:
        for path in mend_store(opened):
            console.print(f"Put right: {path}", markup=False, soft_wrap=True)
    for done in finish_erasures(opened, now=datetime.now(UTC), beyond=forget_beyond):
        what = f"essay {done.essay_alias}" if done.essay_alias else "everything"
        _tell(f"An erasure that had been begun was finished: {what} of batch {done.batch_id}.")
        tell_what_left(done)
    found = check_store(opened)
    answer(found=found)
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
    """Serve the store to many machines; CJ_STORE_TOKEN is what they must present.

    With CJ_STORE_READING_TOKEN, those who present that one can look and change nothing.
    """
    from cj_pipeline.store.quack_store import serve as serve_store

    home, token = home_folder(), os.environ.get("CJ_STORE_TOKEN", "")
    machine = os.environ.get("CJ_HOST") or None
    reading_token = os.environ.get("CJ_STORE_READING_TOKEN") or None

    def begin_anew() -> None:
        errors.print(
            "A client died while it wrote: the server starts again, with all that was committed."
        )
        sys.stderr.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very command

    with serve_store(
        home,
        token,
        host=host,
        port=port,
        machine=machine,
        reading_token=reading_token,
        on_stuck=begin_anew,
    ) as address:
        console.print(f"Set CJ_STORE={address} elsewhere. Ctrl-C ends it.", soft_wrap=True)
        while True:
            time.sleep(3600)


def backup(
    target: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
) -> None:
    """Write a whole copy of the store to a file, and see that it opens."""
    from cj_pipeline.store.maintenance import backup_store

    written = backup_store(_own_file(), target)
    console.print(f"Backed up to {written}.", markup=False, soft_wrap=True)


def restore(source: Annotated[Path, typer.Argument(help="A backup.", exists=True)]) -> None:
    """Replace the live file by a backup; the old live file is kept.

    What was forgotten since the backup is forgotten again.
    """
    from cj_pipeline.operations.personal_data.erase import finish_erasures
    from cj_pipeline.operations.personal_data.erase_again import erased_since
    from cj_pipeline.store.maintenance import restore_store

    now, opened = datetime.now(UTC), _own_file()
    is_known = False

    def amend(live: Session, restored: Session) -> dict[str, list[dict[str, Any]]]:
        nonlocal is_known
        lacks = erased_since(live, restored, now)
        is_known = True
        return lacks

    aside = restore_store(opened, source, now=now, amend=amend)
    kept = f" The old file is kept as {aside}." if aside else ""
    console.print(f"Restored from {source}.{kept}", markup=False, soft_wrap=True)
    for done in finish_erasures(opened, now=now, beyond=forget_beyond):
        what = f"essay {done.essay_alias}" if done.essay_alias else "everything"
        _tell(f"Forgotten since that backup, and again now: {what} of batch {done.batch_id}.")
        tell_what_left(done)
    if not is_known:
        _tell(
            "There was no old file that could be read, so what was forgotten since that backup is"
            " not known: forget it again."
        )


def moved(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Let a home that was moved be the store it was: it may cancel its provider jobs again.

    Not for a copy: two stores of one identity would cancel each other's jobs.
    """
    from cj_pipeline.store.identity import keep_identity

    opened = open_store()
    if not yes:
        confirm("Is nothing left at the old place?")
    if keep_identity(opened, datetime.now(UTC)):
        _tell("This home is the store it was.")
    else:
        _tell("This home was not moved: nothing was changed.")


def compact() -> None:
    """Rewrite the live file without the space of deleted rows."""
    from cj_pipeline.store.maintenance import compact_store

    done = compact_store(_own_file())
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

    now, opened = datetime.now(UTC), _own_file()
    written = archive_callbacks(opened, ended_before=now - timedelta(days=older_than_days))
    console.print(f"{len(written)} batches archived.")
    if delete_after_days is not None:
        gone = delete_archives(opened, written_before=now - timedelta(days=delete_after_days))
        console.print(f"{len(gone)} archives deleted.")


def forget(
    batch: Annotated[
        str, typer.Argument(help="A batch's name.", autocompletion=completion.batch_names)
    ],
    essay_id: Annotated[
        str | None,
        typer.Argument(
            help="One of its essays; the whole batch if left out.",
            autocompletion=completion.essay_names,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    unsettled: Annotated[
        bool, typer.Option("--unsettled", help="Although bills of it are still to come.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Search every file of the home for what was to go."),
    ] = False,
) -> None:
    """Remove a batch's or an essay's texts, callbacks and exports for good."""
    from cj_pipeline.operations.personal_data.erase import forget_batch, forget_essay, words_of
    from cj_pipeline.queries.essay_names import essay_named

    now, opened = datetime.now(UTC), _own_file()
    if essay_id:
        with opened.read() as db:
            essay_id = essay_named(db, batch, essay_id)
    what = f"essay {essay_id} of batch {batch}" if essay_id else f"batch {batch}"
    if not yes:
        confirm(f"Remove {what} for good?")
    words = words_of(opened, batch, essay_id) if verify else ()
    forgotten: Forgotten = (
        forget_essay(opened, batch, essay_id, now=now, unsettled=unsettled, beyond=forget_beyond)
        if essay_id
        else forget_batch(opened, batch, now=now, unsettled=unsettled, beyond=forget_beyond)
    )
    _tell(
        f"{what}: {forgotten.n_rows} rows and {forgotten.n_files} files and runs removed; an audit"
        " line is kept."
    )
    for other_batch, other_essay in forgotten.elsewhere:
        _tell(f"The same text is still in batch {other_batch}, as essay {other_essay}.")
    tell_what_left(forgotten)
    if verify:
        _verify(words)


def tell_what_left(forgotten: Forgotten) -> None:
    """Name what an erasure does not reach: backups and exports outside the home."""
    for path in forgotten.backups:
        _tell(f"{path} was written before, and is yours to prune.")
    for line in forgotten.exports:
        _tell(f"{line} was written outside the home, and is yours to delete.")


def _verify(words: Iterable[bytes]) -> None:
    """Say which files of the home still hold any of some words; end with 1 if one does."""
    from cj_pipeline.operations.personal_data.erase import remains

    found = list(remains(home_folder(), words))
    for path, n_words in found:
        _tell(f"{path} still holds {n_words} pieces of it.")
    if found:
        raise typer.Exit(1)
    _tell("Searched every file of the home: nothing of it is left that is not compressed.")


def forget_beyond(batch: str, is_whole: bool) -> int:
    """Delete what is kept of a batch beside the home: shared files, and runs of its own Dagster."""
    return open_published_files().forget(batch) + _forget_in_dagster(batch, is_whole)


def _forget_in_dagster(batch: str, is_whole: bool) -> int:
    """Delete a batch's runs and partition from Dagster: the home's own, and `DAGSTER_HOME`'s.

    Raises:
        StoreError: If a Dagster is there and its storage does not answer.
    """
    elsewhere = os.environ.get("DAGSTER_HOME")
    folders = {home_folder() / "dagster", *([Path(elsewhere)] if elsewhere else [])}
    found = [folder for folder in sorted(folders) if (folder / "dagster.yaml").exists()]
    if not found:
        return 0
    import dagster as dg
    from sqlalchemy.exc import SQLAlchemyError

    from assets.automation.maintenance import forget_partition

    n_runs = 0
    for folder in found:
        try:
            with dg.DagsterInstance.from_config(str(folder)) as instance:
                n_runs += forget_partition(instance, batch, keep_name=not is_whole)
        except SQLAlchemyError as error:
            msg = f"Dagster's storage, configured in {folder}, does not answer ({error})."
            raise StoreError(msg) from error
    return n_runs


def _own_file() -> FileStore:
    """Return the store of `CJ_HOME`, which has to be a file for what is done here."""
    from cj_pipeline.store.file_store import own_file

    return own_file(open_store())


def _tell(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)

"""What commands work on, as the environment names it; they read it nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cj_pipeline.outputs.exported import Kind
    from cj_pipeline.runtime import Runtime
    from cj_pipeline.storage.published_files import PublishedFiles
    from cj_pipeline.store.base import Store
    from cj_pipeline.store.session import Session


_NOTE_S = 20.0
"""How long an export waits for a store that others write."""


def home_folder() -> Path:
    """Return `CJ_HOME`, or where the store is without it."""
    from cj_pipeline.store.opening import default_home

    return default_home(os.environ).resolve()


def open_runtime(*, is_attended: bool = True) -> Runtime:
    """Return the runtime over `CJ_HOME`; it logs warnings, or as the environment sets.

    `is_attended` is False for what serves other people: what they send is not this person's.
    """
    from resources.runtime import open_runtime as open_from_environment

    configure_logs()
    _warn_of_others(home_folder())
    return open_from_environment(os.environ, is_attended=is_attended)


def open_store() -> Store:
    """Return the store in `CJ_HOME`, or the one that `CJ_STORE` names."""
    from cj_pipeline.store.opening import open_store as open_from_environment

    configure_logs()
    _warn_of_others(home_folder())
    return open_from_environment(home_folder(), os.environ)


def open_published_files() -> PublishedFiles:
    """Return where the files of `CJ_HOME` are published, and shared if `CJ_FILES` is set."""
    from cj_pipeline.storage.published_files import open_published_files as open_from_environment

    return open_from_environment(home_folder(), os.environ)


def note_export(
    path: Path, kind: Kind, batches: Sequence[str], *, essay_id: str | None = None
) -> None:
    """Record where data is about to be written, so that `cj forget` can remove or name it.

    Where the store cannot be written, as by analysts who may only look, that is told.
    """
    from datetime import UTC, datetime

    from cj_pipeline.commands.terminal.console import errors
    from cj_pipeline.errors import CJError, StoreError
    from cj_pipeline.outputs.exported import record_export
    from cj_pipeline.store.file_store import FileStore
    from cj_pipeline.store.opening import open_store as open_from_environment

    host, now = os.environ.get("CJ_HOST") or None, datetime.now(UTC)
    try:
        store = open_from_environment(home_folder(), os.environ)
        if isinstance(store, FileStore) and not store.path.exists():
            msg = f"{store.home} holds a published copy alone."
            raise StoreError(msg)
        with store.waiting(_NOTE_S).write() as db:
            record_export(db, path, kind, batches, now=now, essay_id=essay_id, host=host)
    except (CJError, OSError) as error:
        errors.print(
            f"It is not recorded that {path} was written, so `cj forget` will not name it: {error}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@cache
def _warn_of_others(home: Path) -> None:
    """Warn once that others can read the home, where it was there before we made homes private."""
    from cj_pipeline.commands.terminal.console import errors
    from cj_pipeline.storage.private_files import is_open_to_others

    if is_open_to_others(home):
        errors.print(
            f"Others can look into {home}, where essays and grades lie: `cj store check --fix`"
            " closes it.",
            markup=False,
            soft_wrap=True,
        )


@contextmanager
def published() -> Iterator[Session]:
    """Read the published copy of the store, which gets in no running batch's way."""
    from cj_pipeline.store.opening import open_published
    from cj_pipeline.store.session import Session

    with closing(open_published(home_folder())) as connection:
        yield Session(connection)


def configure_logs(usual: str = "WARNING") -> None:
    """Log at the level of `CJ_LOG_LEVEL`.

    Args:
        usual: The level where it is not set.
    """
    from cj_pipeline.logs import configure_logs as configure

    configure(level=os.environ.get("CJ_LOG_LEVEL", usual))


def logs(to: Path | None) -> AbstractContextManager[None]:
    """Return the block in which everything is logged to a file, or warnings without one."""
    from cj_pipeline.logs import logs_in_file

    configure_logs()
    return logs_in_file(to)

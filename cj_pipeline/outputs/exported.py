"""Where people had data written to: an erasure removes it in the home, and names it elsewhere.

A file is known by its path. Where there is one for each essay the names may be people's, so only
their folder is kept, and what such files are called is worked out when it matters.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cj_pipeline.store.session import Session

Kind = Literal[
    "data frame",
    "query",
    "comparison",
    "verdicts",
    "oversight record",
    "pages",
    "person's record",
    "record of who judged",
]
ANY_BATCH = "*"
"""Stands for the batches of a file that nobody knows them of, as with a query's."""

_OF_ESSAYS: Mapping[str, tuple[str, ...]] = {
    "pages": (".html", ".pdf"),
    "person's record": (".json",),
}
"""How files end that are named after essays, below the folder that is recorded."""


def record_export(
    db: Session,
    path: Path,
    kind: Kind,
    batches: Sequence[str],
    *,
    now: datetime,
    essay_id: str | None = None,
    host: str | None = None,
) -> None:
    """Record what is about to be written, in place of what was there.

    Args:
        db: The store, open for writing.
        path: The file, or the folder where the kind has a file for each essay.
        kind: What it is.
        batches: Whose data is in it; `ANY_BATCH` where that is not known.
        now: The time.
        essay_id: The essay, where it is about one alone.
        host: What this machine is called; by default as it calls itself.
    """
    where = {"path": str(path.resolve()), "host": host or socket.gethostname(), "kind": kind}
    db.execute(
        "DELETE FROM exports WHERE path = $path AND host = $host AND kind = $kind"
        " AND (NOT $shared OR batch_id IN (SELECT unnest($batches)))"
        " AND essay_id IS NOT DISTINCT FROM $essay",
        where | {"shared": kind in _OF_ESSAYS, "batches": list(batches), "essay": essay_id},
    )
    about = {"essay_id": essay_id, "written_at": now}
    db.insert("exports", [where | about | {"batch_id": batch_id} for batch_id in batches])


def files_exported(db: Session, batch_id: str) -> Iterator[Path]:
    """Yield every file into which anything of a batch was or may have been written."""
    for row in _rows(db, batch_id):
        endings = _OF_ESSAYS.get(row["kind"])
        if endings is None:
            yield Path(row["path"])
            continue
        essays = [row["essay_id"]] if row["essay_id"] else _essays(db, batch_id)
        for essay_id in essays:
            yield from (Path(row["path"]) / f"{essay_id}{ending}" for ending in endings)


def exports_elsewhere(
    db: Session, batch_id: str, home: Path, host: str | None = None
) -> tuple[str, ...]:
    """Return what lies outside the home of a batch, each as one line.

    What was written on another machine is told without a look whether it is there still.
    """
    told = []
    for row in _rows(db, batch_id):
        path, is_here = Path(row["path"]), row["host"] == (host or socket.gethostname())
        if is_here and (home.resolve() in path.parents or not path.exists()):
            continue
        where = str(path) if is_here else f"{path} on {row['host']}"
        told.append(f"{where} ({row['kind']}, {row['written_at']:%Y-%m-%d})")
    return tuple(dict.fromkeys(told))


def _rows(db: Session, batch_id: str) -> list[dict[str, Any]]:
    return db.rows(
        "FROM exports WHERE batch_id IN (?, ?) ORDER BY written_at, path, kind",
        [batch_id, ANY_BATCH],
    )


def _essays(db: Session, batch_id: str) -> list[str]:
    rows = db.rows(
        "SELECT essay_id FROM essays WHERE batch_id = $batch"
        " UNION ALL SELECT essay_id FROM shared_texts WHERE batch_id = $batch",
        {"batch": batch_id},
    )
    return [row["essay_id"] for row in rows]

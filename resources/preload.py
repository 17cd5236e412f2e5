"""What a run needs, imported once in the process that runs are forked from; see `warm_runs`.

Nothing is opened here: no store, no instance, no connection is shared between runs.
"""

from __future__ import annotations

import time
from pathlib import Path

from cj_pipeline.steps.preload import GRADING, PUBLISHING, import_ahead

IMPORTED_AT = time.time()

_CODE = ("cj_pipeline", "assets", "resources")
_SOURCES = frozenset({".py", ".sql", ".yaml", ".json", ".html", ".css"})

NEEDED = (
    "cj_pipeline.definitions",
    "dagster._cli.api",
    *GRADING,
    *PUBLISHING,
    "cj_pipeline.provider_jobs.live_calls",
    "openai.resources.batches",
    "openai.resources.chat",
)


def is_stale() -> bool:
    """Return whether any source has changed since it was imported here, as while developing."""
    root = Path(__file__).parents[1]
    return any(
        path.stat().st_mtime > IMPORTED_AT
        for name in _CODE
        for path in (root / name).rglob("*")
        if path.suffix in _SOURCES
    )


import_ahead(float("inf"), NEEDED)

"""What a run needs, imported once in the process that runs are forked from; see `warm_runs`.

Nothing is opened here: no store, no instance, no connection is shared between runs.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from pathlib import Path

IMPORTED_AT = time.time()

_CODE = ("cj_pipeline", "assets", "resources")
_SOURCES = frozenset({".py", ".sql", ".yaml", ".json", ".html", ".css"})

_NEEDED = (
    "cj_pipeline.definitions",
    "dagster._cli.api",
    "cj_pipeline.bradley_terry",
    "cj_pipeline.projection",
    "cj_pipeline.plots",
    "cj_pipeline.report",
    "cj_pipeline.contracts",
    "cj_pipeline.consistency",
    "cj_pipeline.fit_statistics",
    "cj_pipeline.outlook",
    "cj_pipeline.precision",
    "cj_pipeline.quality",
    "cj_pipeline.reliability",
    "cj_pipeline.steps.live_calls",
    "scipy.stats",
    "scipy.optimize",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "PIL.PngImagePlugin",
    "jinja2",
    "jsonschema",
    "xlsxwriter",
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


for _name in _NEEDED:
    # What cannot be imported here fails where it is needed, in a run whose page tells why.
    with contextlib.suppress(Exception):
        importlib.import_module(_name)

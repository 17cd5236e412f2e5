"""What a batch's last steps are made of, imported while its providers are waited for.

Commands begin quickly because heavy modules are imported where they are needed. That would be
after a provider has ended, when somebody waits for grades; before, there is time for nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Iterable

GRADING = (
    "cj_pipeline.scale.bradley_terry",
    "scipy.optimize",
    "cj_pipeline.diagnostics.spread",
    "cj_pipeline.stopping.expected_gain",
    "cj_pipeline.stopping.precision",
    "cj_pipeline.diagnostics.quality_flags",
    "cj_pipeline.diagnostics.reliability",
    "scipy.stats",
    "cj_pipeline.grading.projection",
    "cj_pipeline.grading.linked_scale",
    "cj_pipeline.stopping.forecast",
)

PUBLISHING = (
    "cj_pipeline.diagnostics.summary",
    "cj_pipeline.scale.intervals",
    "cj_pipeline.scale.ranks",
    "cj_pipeline.outputs.contracts",
    "cj_pipeline.diagnostics.consistency",
    "cj_pipeline.diagnostics.fit_statistics",
    "cj_pipeline.outputs.schema_validator",
    "xlsxwriter",
    "jinja2",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "PIL.PngImagePlugin",
    "cj_pipeline.outputs.plots",
    "cj_pipeline.outputs.report",
)

"""In the order needed; other packages' large modules on their own, so that none takes long."""


def import_ahead(for_s: float, names: Iterable[str] = (*GRADING, *PUBLISHING)) -> float:
    """Import what is not imported yet, and begin with nothing more once so many seconds are over.

    Returns:
        The seconds it took; 0 once there is nothing left.
    """
    missing = [name for name in names if name not in sys.modules]
    began = time.monotonic()
    for name in missing:
        if time.monotonic() - began >= for_s:
            break
        # What cannot be imported here fails where it is needed, and says there for what.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return time.monotonic() - began if missing else 0.0

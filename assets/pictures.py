"""Plots as an asset's page shows them: an image inside the metadata, no file to go stale."""

import base64
from typing import Literal

import dagster as dg

from cj_pipeline.steps import Engine

PlotName = Literal["score_plot", "convergence_plot", "fairness_plot", "cost_plot"]


def picture(engine: Engine, batch_id: str, plot: PlotName) -> dg.MarkdownMetadataValue:
    """Return one of the batch's plots as it stands now."""
    from cj_pipeline import plots
    from cj_pipeline.batch_history import read_history

    with engine.store.read() as db:
        history = read_history(db, batch_id)
    image = plots.png(getattr(plots, plot)(history))
    return dg.MetadataValue.md(
        f"![{plot}](data:image/png;base64,{base64.b64encode(image).decode()})"
    )

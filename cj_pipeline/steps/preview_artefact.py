"""The artefact of a batch that was only planned, or whose requests were built and not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cj_pipeline.artefact import WrittenFile, write_artefact
from cj_pipeline.steps.engine import Engine
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.store import Store


def write_preview_artefact(
    engine: Engine,
    batch_folder: Path,
    into: Path,
    *,
    runner_mode: Literal["plan", "dry-run"],
    explicit: Mapping[str, Any],
    requests: Sequence[Path] = (),
) -> WrittenFile:
    """Write what is known of a batch before anything leaves; the store stays as it is.

    Args:
        engine: The pipeline's connections.
        batch_folder: As handed in.
        into: The folder to write to.
        runner_mode: How far the preview went.
        explicit: Settings that win over `batch.yaml`.
        requests: Request files that lie in `into`, for the manifest.

    Raises:
        BatchProblemsError: With everything that is wrong with the folder.
    """
    # The same steps as in earnest, on a store that is forgotten: so the two cannot differ.
    aside = replace(engine, store=Store.in_memory())
    batch_id = ingest(aside, batch_folder, explicit=explicit, runner_mode=runner_mode).batch_id
    plan_wave(aside, batch_id)
    with aside.store.read() as db:
        return write_artefact(
            db,
            batch_id,
            runner_mode,
            into,
            generated_at=engine.clock(),
            environment=engine.run_environment,
            requests=requests,
        )

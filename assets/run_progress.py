"""A batch's progress in Dagster: lines in the run's log, and figures on the asset's page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from cj_pipeline.errors import StoreBusyError, UnknownBatchError
from cj_pipeline.progress_words import event_line, time_left_in_words
from cj_pipeline.steps import Engine
from cj_pipeline.steps.follow import Change, look_at
from cj_pipeline.steps.note_progress import progress_of

LOOK_EVERY_S = 1.0


@contextmanager
def progress_in_run_log(
    context: dg.AssetExecutionContext, engine: Engine, *, since_asked: bool = False
) -> Iterator[None]:
    """Tell in the run's log what happens to the batch while a step works on it.

    Args:
        context: Of the step.
        engine: The pipeline's connections.
        since_asked: Also tell what has happened since the wave was asked: sensors see it first,
            and have no log that anybody reads.
    """
    batch_id = context.partition_key
    told = _last_event(engine, batch_id, "asked" if since_asked else None)
    is_over = threading.Event()

    def tell() -> None:
        nonlocal told
        try:
            look = look_at(engine, batch_id, told)
        except (StoreBusyError, UnknownBatchError):
            return
        for event in look.events:
            context.log.info(event_line(event))
            told = event.sequence

    def keep_telling() -> None:
        change = Change(engine.store)
        while not is_over.wait(LOOK_EVERY_S):
            if change.is_due():
                tell()

    thread = threading.Thread(target=keep_telling, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        tell()


def progress_metadata(engine: Engine, batch_id: str) -> dict[str, float | int | str]:
    """Return how far a batch has come, for the page of an asset; what is unknown is left out."""
    with engine.store.read() as db:
        progress = progress_of(db, batch_id, engine.clock())
    known = {
        "comparisons_per_s": progress.comparisons_per_s,
        "projected_usd": progress.projected_usd,
        "outcome": progress.outcome.value if progress.outcome else None,
    }
    return {
        "share_done": progress.share_done,
        "n_home": progress.n_done,
        "n_expected": progress.n_expected,
        "time_left": time_left_in_words(progress),
        **{key: value for key, value in known.items() if value is not None},
    }


def _last_event(engine: Engine, batch_id: str, kind: str | None) -> int:
    with engine.store.read() as db:
        row = db.one(
            "SELECT coalesce(max(sequence), 0) AS n FROM progress_events"
            " WHERE batch_id = $batch AND ($kind IS NULL OR kind = $kind)",
            {"batch": batch_id, "kind": kind},
        )
    return int(row["n"]) if row else 0

"""What keeps a batch from what it asks for, wherever it comes in: one list for every way in.

`planning.feasibility` finds what the batch's own settings say. Here stands beside it what the
installation's ceilings and the batches it is to be linked to say, which only the store knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cj_pipeline.ceilings import Ceilings
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.intake.settings import EarlierBatch
from cj_pipeline.judging.judges import Judge
from cj_pipeline.live.profiles import Profile
from cj_pipeline.planning.feasibility import (
    Need,
    Obstacle,
    most_within,
    obstacles,
    usd_needed_by,
)
from cj_pipeline.planning.spending_limits import Room, installation, rooms
from cj_pipeline.provider_jobs.requests import BatchTexts
from cj_pipeline.queries.batch_record import BatchRecord, record_of
from cj_pipeline.queries.linked_scale import n_shared_anchors
from cj_pipeline.runtime import Runtime
from cj_pipeline.store.session import Session

LEAST_SHARED_ANCHORS = 3
"""`grading.linking.MIN_SHARED`, which would load numpy here; a test holds them together."""


def batch_obstacles(
    runtime: Runtime, batch: Batch, judges: Sequence[Judge], profile: Profile
) -> list[Obstacle]:
    """Return why a batch cannot end as it asks, however well its providers do; empty if it can.

    Args:
        runtime: The pipeline's connections.
        batch: As read from its folder.
        judges: Its own.
        profile: What bounds its single calls.
    """
    texts = BatchTexts(
        instructions=batch.document("instructions"),
        rubric=batch.document("rubric"),
        essays={essay.essay_id: essay.shown_text for essay in batch.essays},
    )
    record = record_of(batch, judges, "execute")
    return [*record_obstacles(runtime, record, profile, texts), *_links(runtime, batch)]


def record_obstacles(
    runtime: Runtime, record: BatchRecord, profile: Profile, texts: BatchTexts
) -> list[Obstacle]:
    """Return the same of a batch's record, but for what it is linked to."""
    found = obstacles(record, profile, texts)
    said = installation(runtime)
    if said.ceilings == Ceilings() or not record.judges:
        return found  # a plan reads no store where none is asked of it
    with runtime.store.read() as db:
        if stored_batch_state(db, record.batch_id) is not None:
            return found  # part of what it needs is spent already
        room = rooms(db, said, record.batch_id, runtime.clock())
    return [*found, *_ceilings(record, usd_needed_by(record, texts), room)]


def stored_batch_state(db: Session, batch_id: str) -> str | None:
    """Return the state of a batch that was taken in; None where it was not, or was rejected."""
    row = db.one("SELECT state FROM batches WHERE batch_id = ? AND state <> 'rejected'", [batch_id])
    return None if row is None else str(row["state"])


def unknown_links(db: Session, batch: Batch) -> list[str]:
    """Return what a batch begins with or is placed on that is not in the store, a line for each."""
    problems = []
    for name in batch.settings.values.link_to:
        if name == batch.batch_id or stored_batch_state(db, name) is None:
            problems.append(
                f"batch.yaml: link_to: no other batch {name!r} is in the store: submit it first,"
                " or link later with `cj link`"
            )
    head_start = batch.settings.values.head_start
    if isinstance(head_start, EarlierBatch):
        row = db.one("SELECT count(*) AS n FROM v_scores WHERE batch_id = ?", [head_start.batch])
        if row is None or not row["n"]:
            problems.append(
                f"batch.yaml: head_start: no batch {head_start.batch!r} with scores is in the"
                " store: submit it first, or leave head_start out"
            )
    return problems


def _ceilings(record: BatchRecord, need: Need, found: Sequence[Room]) -> Iterator[Obstacle]:
    """An operator's ceiling that is reached before the end leaves a batch waiting at it.

    What is left of a day comes back; what one wave needs at once does not shrink.
    """
    for room in found:
        needed = need.largest_wave_usd if room.renews else need.usd
        left = room.most if room.renews else room.left
        if needed <= left:
            continue
        ways = ["ask the operator to raise it"]
        if room.renews:
            asks = f"one wave may cost {needed:.4f}"
            if record.settings.all_at_once:
                ways.append("leave all_at_once out")
            else:
                ways.append("set a smaller wave_size")
        else:
            asks = f"{need.n_comparisons} comparisons need {needed:.4f}"
            fitting = most_within(record, need.each, left, need.n_comparisons)
            if fitting >= len(record.essay_ids) - 1:
                ways.append(f"lower max_pairwise_comparisons to at most {fitting}")
        used = "" if room.renews else f", {room.whose} used or reserved {room.used:.4f}"
        yield Obstacle(
            "ceiling",
            f"this installation's ceiling is {room.most:g} USD for {room.per}{used}, and"
            f" {asks}. It would wait there without end: {', or '.join(ways)}",
        )


def _links(runtime: Runtime, batch: Batch) -> Iterator[Obstacle]:
    """An earlier batch that ended without scores, or shares too few anchors, can be linked to by
    nobody; one that is not there yet is told of by `unknown_links`.
    """
    earlier = batch.settings.values.link_to
    if not earlier:
        return
    with runtime.store.read() as db:
        if unknown_links(db, batch):
            return
        for name in earlier:
            state = stored_batch_state(db, name)
            if state in {"failed", "cancelled"}:
                yield Obstacle(
                    "link_to",
                    f"batch '{name}' is {state}, so nothing can be placed on its scale:"
                    " name one that has scores, or leave link_to out",
                )
                return
        n_shared = n_shared_anchors(db, earlier, batch)
    if n_shared < LEAST_SHARED_ANCHORS:
        yield Obstacle(
            "link_to",
            f"it shares {n_shared} anchors with {', '.join(earlier)}, and {LEAST_SHARED_ANCHORS}"
            f" are needed to be placed on that scale: add at least"
            f" {LEAST_SHARED_ANCHORS - n_shared} more of its anchors, word for word, or leave"
            " link_to out",
        )

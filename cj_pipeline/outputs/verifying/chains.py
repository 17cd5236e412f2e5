"""The scale of linked batches, put together from their artefacts where no store has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.intake.settings import BatchSettings, grading_terms
from cj_pipeline.outputs.verifying.recomputing import (
    Document,
    anchor_grades,
    judged_pairs,
    refitted,
    settings_of,
)

if TYPE_CHECKING:
    from cj_pipeline.grading.linked_scale import LinkedBatch, LinkedScale
    from cj_pipeline.scale.bradley_terry import Scale


def batches_before(document: Document, known: Mapping[str, Document]) -> list[str]:
    """Return the batches whose scale a batch is on, earliest first, those of `link_to` and theirs.

    One that is not known is among them; what it was linked to is not.
    """
    found: list[str] = []
    for name in document["settings"].get("link_to", {}).get("value") or ():
        links = ((known.get(name) or {}).get("grading") or {}).get("links") or []
        chain = [link["placed_batch_id"] for link in links]
        chain = [links[0]["onto_batch_id"], *chain] if links else []
        found = list(dict.fromkeys([*found, *chain, name]))
    return found


def chain_of(document: Document, scale: Scale, known: Mapping[str, Document]) -> LinkedScale:
    """Return a batch amid those it is linked to.

    Args:
        document: Its artefact.
        scale: Its own.
        known: The artefacts of all batches before it.

    Raises:
        UnscalableBatchError: If a link cannot be made.
    """
    from cj_pipeline.grading.linked_scale import chain_batches

    settings = settings_of(document)
    linked = []
    for name in batches_before(document, known):
        earlier = known[name]
        of = settings_of(earlier)
        is_same = _steps(earlier, of) == _steps(document, settings)
        grades = anchor_grades(earlier) if is_same else {}
        linked.append(_linked_batch(earlier, refitted(earlier, of), grades))
    return chain_batches([*linked, _linked_batch(document, scale, anchor_grades(document))])


def _steps(document: Document, settings: BatchSettings) -> tuple[str, ...] | None:
    terms = grading_terms(settings, document["inputs"].get("grade_scale", {}).get("content"))
    return terms.scale.steps if terms is not None else None


def _linked_batch(document: Document, scale: Scale, grades: Mapping[str, str]) -> LinkedBatch:
    from cj_pipeline.grading.linked_scale import LinkedBatch

    essays = [*document["inputs"]["students"], *document["inputs"]["anchors"]]
    if any("text_checksum" not in row for row in essays):
        msg = f"the artefact of '{document['metadata']['batch_id']}' tells no texts apart"
        raise UnscalableBatchError(msg)
    return LinkedBatch(
        batch_id=document["metadata"]["batch_id"],
        scored=scale,
        texts={row["essay_id"]: row["text_checksum"] for row in essays},
        anchor_ids=tuple(anchor_grades(document)),
        anchor_grades=grades,
        judged=judged_pairs(document),
    )

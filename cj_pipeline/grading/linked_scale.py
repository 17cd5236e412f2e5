"""Several batches on one scale: which essays they share, and one of them graded among them all.

`linking` joins two batches that call shared anchors alike. Here essays get such names (an anchor
is the same where its text is the same, whatever each batch calls it), earlier batches are joined
one after the other, and the result is given for the last one, on its own zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cj_pipeline.arrays import Floats
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.grading.linking import Linked, Scored, link_batches

if TYPE_CHECKING:
    from cj_pipeline.grading.projection import GradeProjections


@dataclass(frozen=True, eq=False)
class LinkedBatch:
    """One batch of a chain.

    Attributes:
        batch_id: Its name.
        scored: Its essays with scores and covariance.
        texts: Per essay a checksum of its text, by which anchors are known again.
        anchor_ids: Its anchors.
        anchor_grades: Their grades on the scale to grade on; of a batch graded on another, none.
        judged: Its finished comparisons.
    """

    batch_id: str
    scored: Scored
    texts: Mapping[str, str]
    anchor_ids: Sequence[str]
    anchor_grades: Mapping[str, str]
    judged: Sequence[JudgedPair]


@dataclass(frozen=True, eq=False)
class Link:
    """One step of a chain: a batch placed on the scale of those before it.

    Attributes:
        placed: The batch that was placed.
        onto: The batches whose scale it is on now, the scale's own first.
        result: The link itself; essays of other batches are called `batch/essay` in it.
    """

    placed: str
    onto: tuple[str, ...]
    result: Linked


@dataclass(frozen=True, eq=False)
class LinkedScale:
    """Several batches on one scale, seen from the last one.

    Attributes:
        essay_ids: Of all batches; the last one's under their own names.
        scores: In logits, the last batch's with mean zero.
        covariance: Of all of them, on that zero.
        standard_errors: Of the scores on the first batch's zero, the links' errors included.
        anchor_grades: Of all batches; where two disagree, the last one's. A drifted anchor's is
            its earlier sighting's.
        judged: All batches' comparisons.
        links: One per batch after the first.
        shift: What has to be added to a score to have it on the first batch's zero.
        regraded: Anchors that batches grade differently.
    """

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    standard_errors: Floats
    anchor_grades: Mapping[str, str]
    judged: tuple[JudgedPair, ...]
    links: tuple[Link, ...]
    shift: float
    regraded: tuple[str, ...]

    @property
    def statement(self) -> str:
        """In plain words, on whose scale the batch is and what to beware of."""
        parts = [f"Placed on the scale of '{self.links[0].onto[0]}'."]
        parts += [
            link.result.statement if len(self.links) == 1 else f"{link.placed}: {statement}"
            for link in self.links
            if (statement := link.result.statement)
        ]
        if self.regraded:
            names = ", ".join(f"'{anchor}'" for anchor in self.regraded[:5])
            parts.append(f"Graded otherwise before than here, where its grade counts: {names}.")
        return " ".join(parts)


def chain_batches(batches: Sequence[LinkedBatch]) -> LinkedScale:
    """Return all batches on the first one's scale, seen from the last one.

    Args:
        batches: Earliest first; two or more.

    Raises:
        UnscalableBatchError: If a batch shares too few anchors with those before it, or too many
            of them drifted; the batch is named.
    """
    names = _names(batches)
    joined: Scored = _Renamed.of(batches[0], names)
    links = []
    anchors = list(dict.fromkeys(names[b.batch_id][a] for b in batches for a in b.anchor_ids))
    for place, batch in enumerate(batches[1:], start=1):
        before = tuple(earlier.batch_id for earlier in batches[:place])
        try:
            result = link_batches(joined, _Renamed.of(batch, names), anchors)
        except UnscalableBatchError as error:
            msg = f"'{batch.batch_id}' cannot be placed on the scale of '{before[0]}': {error}"
            raise UnscalableBatchError(msg) from error
        links.append(Link(batch.batch_id, before, result))
        _name_earlier_sightings(names, before, joined.essay_ids, result)
        joined = result
    last = batches[-1]
    own = [joined.essay_ids.index(essay) for essay in last.scored.essay_ids]
    gauge = np.eye(len(joined.essay_ids))
    gauge[:, own] -= 1 / len(own)
    shift = float(np.mean(joined.scores[own]))
    grades: dict[str, str] = {}
    regraded = []
    # What judges see in a drifted anchor now is not what it was graded for.
    moved = {drift.essay_id for link in links for drift in link.result.drifts if drift.is_drifted}
    for batch in batches:
        for anchor, grade in batch.anchor_grades.items():
            name = names[batch.batch_id][anchor]
            if name in moved:
                continue
            if grades.get(name, grade) != grade:
                regraded.append(name)
            grades[name] = grade
    return LinkedScale(
        essay_ids=joined.essay_ids,
        scores=joined.scores - shift,
        covariance=gauge @ joined.covariance @ gauge.T,
        standard_errors=np.sqrt(np.diag(joined.covariance)),
        anchor_grades=grades,
        judged=tuple(
            JudgedPair(of[v.essay_a], of[v.essay_b], v.winner, v.judge_id)
            for batch in batches
            for of in (names[batch.batch_id],)
            for v in batch.judged
        ),
        links=tuple(links),
        shift=shift,
        regraded=tuple(dict.fromkeys(regraded)),
    )


def _name_earlier_sightings(
    names: dict[str, dict[str, str]],
    before: Sequence[str],
    known_ids: Sequence[str],
    result: Linked,
) -> None:
    """Give a drifted anchor's sightings up to now the name the link has for them.

    The anchor's own name is the later sighting's from here on; its grade and its earlier verdicts
    are the earlier one's.
    """
    renamed = {
        drift.essay_id: name
        for drift in result.drifts
        if drift.is_drifted
        for name in [result.essay_ids[list(known_ids).index(drift.essay_id)]]
    }
    for batch_id in before:
        of = names[batch_id]
        for essay, name in of.items():
            of[essay] = renamed.get(name, name)


def only(projections: GradeProjections, essay_ids: Sequence[str]) -> GradeProjections:
    """Return the projections of these essays alone; boundaries and checks stay those of all."""
    from dataclasses import replace

    if not projections.is_graded:
        return projections
    at = [projections.essay_ids.index(essay) for essay in essay_ids]
    return replace(
        projections,
        essay_ids=tuple(essay_ids),
        probabilities=projections.probabilities[at],
        expected_grade=projections.expected_grade[at],
        most_probable=tuple(projections.most_probable[i] for i in at),
        fine_grades=tuple(projections.fine_grades[i] for i in at),
        confidence=projections.confidence[at],
        placed_scores=projections.placed_scores[at],
        extrapolated=projections.extrapolated[at],
        primary_anchor_ids=tuple(projections.primary_anchor_ids[i] for i in at),
    )


@dataclass(frozen=True, eq=False)
class _Renamed:
    """A batch's scores under the names its essays have in the chain."""

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats
    scale: Scored

    @classmethod
    def of(cls, batch: LinkedBatch, names: Mapping[str, Mapping[str, str]]) -> _Renamed:
        of = names[batch.batch_id]
        scored = batch.scored
        names_now = tuple(of[e] for e in scored.essay_ids)
        return cls(names_now, scored.scores, scored.covariance, scored)


def _names(batches: Sequence[LinkedBatch]) -> dict[str, dict[str, str]]:
    """Return per batch what each of its essays is called in the chain.

    The last batch's essays keep their ids, for they are what is reported; an anchor of the same
    text has the same name in every batch. All others are called `batch/essay`, so that essays that
    two batches happen to call alike stay apart.
    """
    called: dict[str, str] = {
        batches[-1].texts[anchor]: anchor for anchor in batches[-1].anchor_ids
    }
    names: dict[str, dict[str, str]] = {}
    for batch in batches:
        is_last = batch is batches[-1]
        names[batch.batch_id] = {
            essay: essay if is_last else f"{batch.batch_id}/{essay}"
            for essay in batch.scored.essay_ids
        }
        for anchor in batch.anchor_ids:
            text = batch.texts[anchor]
            called.setdefault(text, names[batch.batch_id][anchor])
            names[batch.batch_id][anchor] = called[text]
    return names

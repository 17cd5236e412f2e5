"""How far judge and graders disagree about an essay, and what earlier gradings tell of it.

The disagreement r is the logarithm of its size in steps. A dozen anchors say little of it, so much
hangs on what is taken beforehand. Without a history that is the usual N(m, s^2). A judge that
graded before by the same template, rubric and scale has shown how it disagrees:

    batch b's own disagreement    r_b ~ N(mu, tau^2)
    beforehand                    mu ~ N(m, s^2 - least tau^2)
    what batch b told             log L_b(r) = pull_b (r - m) - precision_b (r - m)^2 / 2

and the next batch's is N(E mu, var mu + tau^2): never surer than `BATCHES_DIFFER`, never further
from the usual than `FARTHEST` of its standard deviations. Batches that contradict each other raise
tau (DerSimonian and Laird). An exemplar tells its own disagreement once, however often it is
judged: those of the batch in hand, and those counted already, are left out by their share.

What is read from a store is in `queries.disagreement`; the fit that takes it is `boundaries`.

References:
    DerSimonian and Laird (1986), doi:10.1016/0197-2456(86)90046-2.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cj_pipeline.arrays import Floats

LOG_SHARE_MEAN, LOG_SHARE_SD = math.log(1 / 18), 0.6
"""Disagreement between the anchors' graders and the judge, as a share of what all steps span: half
a step on a scale of nine, 0.15 to 1.6 (95 %). Half a step is what makes two graders agree exactly
on 60 % of essays, as Ofqual (2018, "Marking consistency metrics") found for English; a dozen
anchors in perfect order cannot rule it out. On coarser scales the same graders agree more often."""

BATCHES_DIFFER = 0.3
"""The least tau: classes and assignments differ, however many batches are known."""
FARTHEST = 2.0
"""Standard deviations of the usual by which a history may move what is expected."""


@dataclass(frozen=True)
class Disagreement:
    """What is known of a disagreement: its logarithm in steps is normal."""

    log_mean: float
    log_sd: float

    @property
    def median(self) -> float:
        """In steps, like `lower` and `upper`, which hold it with 95 % probability."""
        return math.exp(self.log_mean)

    @property
    def lower(self) -> float:
        """See `median`."""
        return math.exp(self.log_mean - 1.96 * self.log_sd)

    @property
    def upper(self) -> float:
        """See `median`."""
        return math.exp(self.log_mean + 1.96 * self.log_sd)


def usual_disagreement(n_steps: int) -> Disagreement:
    """Return what is taken of a judge of which nothing is known."""
    return Disagreement(LOG_SHARE_MEAN + float(np.log(n_steps)), LOG_SHARE_SD)


@dataclass(frozen=True)
class Told:
    """What some grades told of the disagreement, as a log likelihood around the usual mean.

    Attributes:
        precision: Its curvature; 0 where it told nothing.
        pull: Its slope at the usual mean; positive for a larger disagreement.
    """

    precision: float
    pull: float

    def times(self, share: float) -> Told:
        """Return what a share of the same grades tells."""
        return Told(self.precision * share, self.pull * share)


def told_by(logs: Floats, slopes: Floats, usual: Disagreement) -> Told:
    """Return what a likelihood tells, from draws of its posterior.

    The slope of a likelihood of r alone is the mean, over all else, of the slope at r (Fisher's
    identity), so a line through the draws' slopes gives both its place and its curvature, whatever
    was believed of r beforehand.

    Args:
        logs: Draws of r; shape (n_draws,).
        slopes: Of the log likelihood with respect to r, at each draw; shape (n_draws,).
        usual: Whose mean the line is given at.
    """
    centred = logs - logs.mean()
    variance = float(centred @ centred)
    precision = -float(centred @ slopes) / variance if variance > 0 else 0.0
    if precision <= 0:  # flat, or bent the wrong way: nothing that a normal curve could pass on
        return Told(0.0, 0.0)
    return Told(precision, float(slopes.mean()) + precision * (float(logs.mean()) - usual.log_mean))


@dataclass(frozen=True)
class DisagreementFound:
    """What a grading found.

    Attributes:
        median, lower, upper: Of the students' disagreement once all is known, in steps; the limits
            hold it with 95 % probability.
        exemplars: What the anchors told.
        sample: What a moderation sample told; None without one.
    """

    median: float
    lower: float
    upper: float
    exemplars: Told
    sample: Told | None = None


@dataclass(frozen=True)
class EarlierGrading:
    """What an earlier batch of the same judge told.

    Attributes:
        batch_id, revision: Which grading it was.
        share: Of its anchors, those not counted elsewhere, from 0 to 1.
        exemplars: What all of its anchors told.
        sample: What its moderation sample told; None without one.
    """

    batch_id: str
    revision: int
    share: float
    exemplars: Told
    sample: Told | None = None

    @property
    def parts(self) -> tuple[Told, ...]:
        """What it adds: its new anchors and its sampled students, each by itself."""
        given = (self.exemplars.times(self.share), self.sample)
        return tuple(each for each in given if each is not None and each.precision > 0)


@dataclass(frozen=True)
class ExpectedDisagreement:
    """What a grading takes beforehand, and where it has that from.

    Attributes:
        prior: What is taken.
        judged_by: A checksum of judges, rubric and scale; gradings with the same one are a history.
        learnt_from: Earlier gradings, the latest first; empty where the usual is taken.
    """

    prior: Disagreement
    judged_by: str
    learnt_from: tuple[EarlierGrading, ...] = ()

    @property
    def if_learnt(self) -> Disagreement | None:
        """What is taken where it is not the usual."""
        return self.prior if self.learnt_from else None

    def as_record(self) -> dict[str, Any]:
        """Return it as a grading keeps it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ExpectedDisagreement:
        """Return what `as_record` wrote."""
        return cls(
            prior=Disagreement(**record["prior"]),
            judged_by=record["judged_by"],
            learnt_from=tuple(_earlier(each) for each in record["learnt_from"]),
        )


def _earlier(record: Mapping[str, Any]) -> EarlierGrading:
    sample = record["sample"]
    told = {
        "exemplars": Told(**record["exemplars"]),
        "sample": Told(**sample) if sample is not None else None,
    }
    return EarlierGrading(**{**record, **told})


def judged_by(judge_ids: Iterable[str], rubric_sha256: str | None, steps: Sequence[str]) -> str:
    """Return a checksum of what has to be the same for gradings to be one history.

    Args:
        judge_ids: Of the models with verdicts; a judge's template is in its fingerprint, its name
            is left out. The word `people` where people judged too.
        rubric_sha256: Of the rubric; None without one.
        steps: The scale's, lowest first.
    """
    fingerprints = sorted({judge_id.rsplit("-", 1)[-1] for judge_id in judge_ids})
    parts = json.dumps([fingerprints, rubric_sha256, list(steps)], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()


def learn(usual: Disagreement, earlier: Sequence[EarlierGrading]) -> Disagreement:
    """Return what earlier gradings make of the usual disagreement; the usual without any."""
    told = [part for each in earlier for part in each.parts]
    if not told:
        return usual
    precisions = np.array([each.precision for each in told])
    pulls = np.array([each.pull for each in told])
    least = BATCHES_DIFFER**2
    between = float(np.clip(_between(precisions, pulls / precisions), least, usual.log_sd**2))
    weakened = 1 + precisions * between
    precision = 1 / (usual.log_sd**2 - least) + float(np.sum(precisions / weakened))
    moved = float(np.sum(pulls / weakened)) / precision
    farthest = FARTHEST * usual.log_sd
    return Disagreement(
        usual.log_mean + float(np.clip(moved, -farthest, farthest)),
        min(math.sqrt(1 / precision + between), usual.log_sd),
    )


def _between(precisions: Floats, values: Floats) -> float:
    """Return the variance between batches beyond their errors, by moments."""
    total = float(precisions.sum())
    mean = float(precisions @ values) / total
    spread = float(precisions @ (values - mean) ** 2)
    room = total - float(precisions @ precisions) / total
    return max(0.0, (spread - (len(values) - 1)) / room) if room > 0 else 0.0

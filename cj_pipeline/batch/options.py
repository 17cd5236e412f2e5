"""The closed vocabularies of a batch: strategies, ties, engines, modes, priorities, targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import mean, stdev
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

RunnerMode = Literal["plan", "dry-run", "execute"]

BatchingMode = Literal["per_request", "serial_bundle", "provider_batch_api"]
Strategy = Literal["adaptive", "coverage", "resample", "random", "swiss", "asap", "hybrid_mst"]
Priority = Literal["low", "normal", "high"]
ScoringEngine = Literal["newton", "choix"]
Ties = Literal["half-half", "davidson"]
InconsistentPolicy = Literal["keep", "halve", "drop"]


class WaitingFor(StrEnum):
    """What a job or a batch waits for other than the provider's own work, in one word, as stored.

    The most urgent first: of a batch whose jobs wait for several things, that one is shown.
    """

    KEY = "key"
    CREDIT = "credit"
    PERSON = "person"
    ROWS = "rows"
    ROOM = "room"
    SIGN_OFF = "sign_off"


def _on_or_off(value: Any) -> Any:
    # YAML takes a bare on and off for true and false.
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)]

DependenceSwitch = Annotated[Literal["auto", "off"], BeforeValidator(_on_or_off)]

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Goal:
    """What a batch's pairs should make certain.

    Attributes:
        kind: `ranking`: every rank. `grades`: every grade. `top`: who the best students are.
            `cut`: on which side of one cut each student is.
        count: Of `top(10)`, how many students; None where a share or a grade is given.
        share: Of `top(10%)` or `cut(40%)`, the share of the students that is above.
        grade: Of `cut(C)`, the lowest grade above the cut.
    """

    kind: Literal["ranking", "grades", "top", "cut"]
    count: int | None = None
    share: float | None = None
    grade: str | None = None

    @property
    def is_one_cut(self) -> bool:
        """Whether the students are parted in two, and nothing else matters."""
        return self.kind in {"top", "cut"}

    def n_above(self, n_students: int) -> int | None:
        """Return how many students are above the cut; None where grades or ranks say."""
        if self.share is not None:
            return min(max(round(self.share * n_students), 1), max(n_students - 1, 1))
        return self.count


_WITH_ARGUMENT = re.compile(r"(top|cut)\s*\(\s*(.+?)\s*\)")


def goal_of(text: str) -> Goal:
    """Return the goal that `batch.yaml` names.

    Raises:
        ValueError: If it is none.
    """
    if text == "ranking":
        return Goal("ranking")
    if text == "grades":
        return Goal("grades")
    found = _WITH_ARGUMENT.fullmatch(text.strip())
    if found is None:
        msg = (
            f"{text!r} is no goal: say ranking, grades, top(10), top(10%), cut(40%) or the lowest"
            " grade above a cut, such as cut(C)"
        )
        raise ValueError(msg)
    kind: Literal["top", "cut"] = "top" if found[1] == "top" else "cut"
    inside = found[2]
    if re.fullmatch(r"\d+(\.\d+)?%", inside):
        share = float(inside[:-1]) / 100
        if not 0 < share < 1:
            msg = f"{text!r}: a share lies between 0 and 100 %"
            raise ValueError(msg)
        return Goal(kind, share=share)
    if kind == "cut":
        return Goal("cut", grade=inside)
    if re.fullmatch(r"[1-9]\d{0,6}", inside):
        return Goal("top", count=int(inside))
    msg = f"{text!r}: top takes how many students, or their share: top(10) or top(10%)"
    raise ValueError(msg)


def _checked_goal(text: str) -> str:
    goal_of(text)
    return text


GoalText = Annotated[str, AfterValidator(_checked_goal)]


class ScaledScores(BaseModel):
    """On which scale scores are shown beside logits: a range, or a mean and a spread.

    Attributes:
        low: What the batch's lowest score becomes; needs `high`.
        high: What its highest score becomes.
        mean: What the students' mean score becomes; needs `spread`.
        spread: What the standard deviation of the students' scores becomes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float | None = None
    high: float | None = None
    mean: float | None = None
    spread: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_one_scale(self) -> ScaledScores:
        given = {name for name, value in self.model_dump().items() if value is not None}
        if given not in ({"low", "high"}, {"mean", "spread"}):
            msg = "scaled_scores takes low and high, or mean and spread"
            raise ValueError(msg)
        if self.low is not None and self.high is not None and self.low >= self.high:
            msg = "scaled_scores: low has to be below high"
            raise ValueError(msg)
        return self

    def line(
        self, scores: Sequence[float], students: Sequence[float]
    ) -> tuple[float, float] | None:
        """Return what a logit is in these units and what a score of zero becomes.

        The same line as `v_scaled_scores`, for a batch that is linked to none.

        Args:
            scores: Of all essays, in logits.
            students: Of the students alone.

        Returns:
            None where scores that are all one make no scale.
        """
        if self.low is not None and self.high is not None:
            width = max(scores) - min(scores)
            unit = (self.high - self.low) / width if width else None
            return None if unit is None else (unit, self.low - unit * min(scores))
        width = stdev(students) if len(students) > 1 else 0.0
        if not width or self.spread is None or self.mean is None:
            return None
        unit = self.spread / width
        return unit, self.mean - unit * mean(students)


class PrecisionTargets(BaseModel):
    """When a batch is precise enough to stop; each target that is given must be met.

    Attributes:
        reliability: At least this empirical-Bayes reliability, after two waves in a row.
        mean_standard_error: At most this mean standard error of the students' scores, in logits.
        max_standard_error: At most this largest standard error of a student's score, in logits.
        misgrading: At most this share of students is expected to have another grade than their
            most probable one; needs a scale and anchors.
        misplaced: With `goal: top(...)`, at most this share of the students named as the best is
            expected not to be among them; with `goal: cut(...)`, at most this share of all students
            is expected to be on the wrong side.
        gain_per_usd: One more USD is expected to reduce the typical error of a rank by at most
            this many ranks (with `goal: grades`, of a grade, by this many steps).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    mean_standard_error: Annotated[float, Field(gt=0)] | None = None
    max_standard_error: Annotated[float, Field(gt=0)] | None = None
    misgrading: Annotated[float, Field(gt=0, lt=1)] | None = None
    misplaced: Annotated[float, Field(gt=0, lt=1)] | None = None
    gain_per_usd: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> PrecisionTargets:
        if all(target is None for target in self.model_dump().values()):
            msg = f"precise needs a target, or leave it out: {', '.join(type(self).model_fields)}"
            raise ValueError(msg)
        return self


class PeopleRules(BaseModel):
    """What is asked of the people among a batch's judges.

    Attributes:
        share: Of the pairs that models judge, the share that people judge too, from 0 to 1.
        random_part: Of these, the share drawn at random; the rest are pairs on which a person's
            verdict tells most. Only the random part gives unbiased agreement.
        second_part: Of these, the share that a second person judges as well.
        repeat_every: Each person is shown one of their pairs again, sides exchanged, after this
            many verdicts; 0: never. A repeat shows how steady a person is, and does not count.
        wait: Whether a wave, and the end, wait until people have judged what they were given.
        seconds_per_verdict: What a verdict is planned with until some have been given, in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Share = 0.1
    random_part: Annotated[float, Field(gt=0, le=1)] = 0.5
    second_part: Share = 0.2
    repeat_every: Annotated[int, Field(ge=0, le=100)] = 15
    wait: bool = False
    seconds_per_verdict: Annotated[float, Field(gt=0, le=3600)] = 60.0

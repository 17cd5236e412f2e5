"""The closed vocabularies of a batch: strategies, ties, engines, modes, priorities, targets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


class PrecisionTargets(BaseModel):
    """When a batch is precise enough to stop; each target that is given must be met.

    Attributes:
        reliability: At least this empirical-Bayes reliability, after two waves in a row.
        mean_standard_error: At most this mean standard error of the students' scores, in logits.
        max_standard_error: At most this largest standard error of a student's score, in logits.
        misgrading: At most this share of students is expected to have another grade than their
            most probable one; needs a scale and anchors.
        gain_per_usd: One more USD is expected to reduce the typical error of a rank by at most
            this many ranks (with `goal: grades`, of a grade, by this many steps).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    mean_standard_error: Annotated[float, Field(gt=0)] | None = None
    max_standard_error: Annotated[float, Field(gt=0)] | None = None
    misgrading: Annotated[float, Field(gt=0, lt=1)] | None = None
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

"""What a batch may be told to do, its defaults, and where each value came from.

`ingestion` reads `batch.yaml` into this; every later step reads only the resolved settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

BatchingMode = Literal["per_request", "serial_bundle", "provider_batch_api"]
Strategy = Literal["adaptive", "coverage", "resample", "random", "swiss", "asap", "hybrid_mst"]
Origin = Literal["built-in", "batch.yaml", "explicit"]

Share = Annotated[float, Field(ge=0, le=1)]


class PreciseRule(BaseModel):
    """When a batch is precise enough to stop; each target that is given must be met.

    Attributes:
        reliability: The empirical-Bayes reliability to reach.
        mean_standard_error: In logits, over students.
        max_standard_error: In logits, over students.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    mean_standard_error: Annotated[float, Field(gt=0)] | None = None
    max_standard_error: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> PreciseRule:
        if not any((self.reliability, self.mean_standard_error, self.max_standard_error)):
            msg = "precise needs a target: give a reliability or a standard error, or leave it out"
            raise ValueError(msg)
        return self


class BatchSettings(BaseModel):
    """The keys of `batch.yaml`, with the defaults of DESIGN section 2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    about: str = ""
    assignment_id: str | None = None
    course_id: str | None = None
    language: str = "en"

    scale: str | None = None
    judges: Annotated[tuple[str, ...], Field(min_length=1)] = ("quality",)

    llm_batching_mode: BatchingMode = "provider_batch_api"
    llm_batching_mode_override: BatchingMode | None = None
    all_at_once: bool = False
    strategy: Strategy = "adaptive"
    seed: int = 0
    goal: Literal["ranking", "grades"] = "ranking"
    """What pairs chosen by gain are to make sure: every essay's rank, or which side of a grade
    boundary a student's essay lies on (which needs a scale and anchors)."""
    rough_order: tuple[tuple[str, ...], ...] = ()
    """Essays somebody takes to be alike, weakest group first; only guides the first pairs."""
    both_orders: bool = False
    """Ask every chosen pair twice, once in each order; each counts as a comparison."""
    may_repeat_pairs: bool = False
    """Let pairs chosen by scores be asked again before every pair was asked once."""

    max_pairwise_comparisons: Annotated[int, Field(ge=1)] = 120
    wave_size: Annotated[int, Field(ge=1)] | None = None
    spend_cap_usd: Annotated[float, Field(gt=0)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3

    score_stability_threshold: Annotated[float, Field(gt=0)] | None = 0.025
    min_comparisons_for_stability_check: Annotated[int, Field(ge=1)] = 12
    precise: PreciseRule | None = None
    min_success_rate: Share = 0.8
    min_resampling_net_size: Annotated[int, Field(ge=2)] = 3
    max_resampling_passes_for_small_net: Annotated[int, Field(ge=0)] = 4
    max_resampling_passes_for_regular_net: Annotated[int, Field(ge=0)] = 1
    mean_se_warning: Annotated[float, Field(gt=0)] = 0.4
    max_se_warning: Annotated[float, Field(gt=0)] = 0.8
    stall_after_s: Annotated[float, Field(gt=0)] = 36 * 3600

    scoring_engine: Literal["newton", "choix"] = "newton"
    emulator_qualities: Mapping[str, float] = Field(default_factory=dict)
    """Latent quality per essay id, in logits, for simulated judges only; never in any result."""

    @model_validator(mode="after")
    def _all_at_once_needs_one_wave(self) -> BatchSettings:
        if self.all_at_once and self.wave_size is not None:
            msg = "wave_size and all_at_once exclude each other: remove one of them"
            raise ValueError(msg)
        return self

    @property
    def batching_mode(self) -> BatchingMode:
        """The mode in force: the override where one is given."""
        return self.llm_batching_mode_override or self.llm_batching_mode


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings in force, and for each key whether it is built in, from the file or explicit."""

    values: BatchSettings
    origins: Mapping[str, Origin]


def resolve_settings(
    configured: Mapping[str, Any], explicit: Mapping[str, Any] | None = None
) -> tuple[ResolvedSettings | None, list[str]]:
    """Return the settings in force, or None and everything that is wrong with them.

    Args:
        configured: The mapping read from `batch.yaml`.
        explicit: What the caller set by hand (command line, run config); wins over the file.
    """
    explicit = explicit or {}
    problems = [_unknown_key(key) for key in configured if key not in BatchSettings.model_fields]
    known = {k: v for k, v in configured.items() if k in BatchSettings.model_fields}
    try:
        values = BatchSettings.model_validate({**known, **explicit})
    except ValidationError as error:
        problems += [
            f"batch.yaml: {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}"
            for e in error.errors()
        ]
        return None, problems
    if problems:
        return None, problems
    origins: dict[str, Origin] = {
        key: "explicit" if key in explicit else "batch.yaml" if key in known else "built-in"
        for key in BatchSettings.model_fields
    }
    return ResolvedSettings(values, origins), []


def _unknown_key(key: object) -> str:
    near = difflib.get_close_matches(str(key), BatchSettings.model_fields, n=1, cutoff=0.0)
    return f"batch.yaml: nobody knows the key {str(key)!r}; the nearest known key is {near[0]!r}"

"""What a batch may be told to do, its defaults, and where each value came from.

`ingestion` reads `batch.yaml` into this; every later step reads only the resolved settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cj_pipeline.batch.options import (
    BatchingMode,
    InconsistentPolicy,
    PrecisionTargets,
    Priority,
    ScoringEngine,
    Share,
    Strategy,
    Switch,
    Ties,
)
from cj_pipeline.ids import ID, unknown
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.pairing.judge_shares import shares_problem

if TYPE_CHECKING:
    from cj_pipeline.grading.rules import GradingTerms
    from cj_pipeline.scale.scoring import ScoringRules

Origin = Literal["built-in", "batch.yaml", "explicit"]


class EarlierBatch(BaseModel):
    """A batch in the store whose scores guide the first pairs of this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Annotated[str, Field(pattern=ID)]


class BatchSettings(BaseModel):
    """The keys of `batch.yaml`, with the defaults of DESIGN section 2."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    title: str = ""
    """What people call the batch; the report's heading."""
    about: str = ""
    """A sentence or two on what the batch is, shown beside the title."""
    assignment_id: str | None = None
    """Your own name or UUID of the assignment, for the artefact."""
    course_id: str | None = None
    """Your own name or UUID of the course, for the artefact."""
    language: str = "en"
    """The language of the essays, as a BCP 47 tag."""

    scale: str | None = None
    """The grade scale anchors' grades are on: a built-in one, or the one in the batch's own
    scale.yaml; without it a batch ends with scores and ranks."""
    use_priors: bool = False
    """Let the shares a scale has published weigh in; a student's grade then depends on what
    students elsewhere were given."""
    link_to: tuple[Annotated[str, Field(pattern=ID)], ...] = ()
    """Earlier batches on whose scale this one is placed, through three or more anchors that both
    have judged; earliest first."""
    min_anchor_grades: Annotated[int, Field(ge=2)] = 2
    """No grades with fewer different grades among the anchors."""
    min_anchor_separation_z: Annotated[float, Field(ge=0)] = 1.64
    """No grades unless anchors' scores rise with their grades by so many standard errors."""
    max_anchor_disagreement: Annotated[float, Field(gt=0)] = 1.5
    """No grades where judge and anchors' graders disagree by more steps than this."""
    max_extrapolated_share: Share = 0.5
    """No grades where more of the students than this share score outside all anchors."""
    max_inversion_p: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Two anchors against their grades are told when chance explains them more rarely than so."""
    judges: Annotated[tuple[str, ...], Field(min_length=1)] = ("quality",)
    """Who judges, by name; several are a panel and are asked about the same pairs."""
    judge_shares: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """Of how many of the pairs each judge of a panel is asked, from 0 to 1; left out: of all. With
    shares that add up to 1 each pair is one judge's; with more, some are asked of several."""
    judge_choice: Literal["shares", "by_worth"] = "shares"
    """Whom of a panel to ask: each its share, or, pair by pair of one judge, mostly whose verdicts
    have told most per dollar so far."""

    llm_batching_mode: BatchingMode = "provider_batch_api"
    """How requests go out: single calls, calls in series, or the provider's batch endpoint."""
    llm_batching_mode_override: BatchingMode | None = None
    """The mode for this batch alone; wins over `llm_batching_mode` and is recorded as such."""
    profile: str = "default"
    """How hard single calls press on their providers: `cj profile list` shows which there are."""
    profile_set: Mapping[str, Any] = Field(default_factory=dict)
    """Fields of the profile for this batch alone; win over what the profile says."""
    priority: Priority = "normal"
    """Whose single calls go first where batches wait for the same provider."""
    all_at_once: bool = False
    """Ask the whole budget in one wave and score once."""
    strategy: Strategy = "adaptive"
    """How the next wave's pairs are chosen."""
    seed: int = 0
    """Decides ties among pairs and positions; the same seed gives the same wave."""
    goal: Literal["ranking", "grades"] = "ranking"
    """What pairs chosen by gain are to make sure: every essay's rank, or which side of a grade
    boundary a student's essay lies on (which needs a scale and anchors)."""
    rough_order: tuple[tuple[str, ...], ...] = ()
    """Essays somebody takes to be alike, weakest group first; only guides the first pairs."""
    head_start: Literal["texts"] | EarlierBatch | None = None
    """What else may guide the first pairs: how varied the texts' words are, or the scores of an
    earlier batch with the same texts or essay ids; no guess enters a score."""
    both_orders: bool = False
    """Ask every chosen pair twice, once in each order; each counts as a comparison."""
    may_repeat_pairs: bool = False
    """Let pairs chosen by scores be asked again before every pair was asked once."""

    max_pairwise_comparisons: Annotated[int, Field(ge=1)] = 120
    """The budget: a cap on comparisons, never an obligation."""
    wave_size: Annotated[int, Field(ge=1)] | None = None
    """Pairs per wave; left out: half as many as there are essays."""
    spend_cap_usd: Annotated[float, Field(gt=0)] | None = None
    """What the batch may cost at the most; the worst case is reserved before each submission."""
    canary_requests: Annotated[int, Field(ge=0, le=50)] | None = None
    """How many single calls go ahead of a provider job of a judge that has given no verdict here
    yet; left out: three for a real judge, none for a simulated one; 0: never."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a comparison is asked before it counts as failed for good."""

    score_stability_threshold: Annotated[float, Field(gt=0)] | None = 0.025
    """Stop once no score moved by more than this many logits between waves; none: never."""
    min_comparisons_for_stability_check: Annotated[int, Field(ge=1)] = 12
    """How many callbacks there must be before stability is looked at."""
    precise: PrecisionTargets | None = None
    """Stop once the targets given here are met; the rule we recommend."""
    min_success_rate: Share = 0.8
    """The least share of comparisons that must succeed for the batch to count as complete."""
    min_resampling_net_size: Annotated[int, Field(ge=2)] = 3
    """The largest number of essays that counts as a small net, which is covered and resampled."""
    max_resampling_passes_for_small_net: Annotated[int, Field(ge=0)] = 4
    """How often a small net's pairs are asked again after every pair was asked once."""
    max_resampling_passes_for_regular_net: Annotated[int, Field(ge=0)] = 1
    """The same for a net that is not small."""
    mean_se_warning: Annotated[float, Field(gt=0)] = 0.4
    """Warn when the mean standard error of the scores is above this, in logits."""
    max_se_warning: Annotated[float, Field(gt=0)] = 0.8
    """Warn when the largest standard error of a score is above this, in logits."""
    stall_after_s: Annotated[float, Field(gt=0)] = 36 * 3600
    """After how many seconds without any news a batch is ended as stalled."""

    assertions: tuple[OwnAssertion, ...] = ()
    """What must come out, in the words of `cj metrics`: no grades leave where one does not hold."""

    scoring_engine: ScoringEngine = "newton"
    """Who fits the scores: our own Newton solver, or the library choix as an independent check,
    which knows neither position effects nor discrimination nor tie strengths."""
    position_effect: Switch = "auto"
    """Estimate for each judge what being shown first is worth. auto: where its verdicts tell it to
    within half a logit; on: wherever they tell it at all; off: never."""
    judge_discrimination: Switch = "auto"
    """Estimate how strongly each judge of a panel tells essays apart. auto: once each has given 50
    verdicts; on: in every panel; off: never."""
    ties: Ties = "half-half"
    """A tie is half a win to each, or has a strength of its own (Davidson)."""
    inconsistent_verdicts: InconsistentPolicy = "keep"
    """Verdicts of pairs on which a judge, shown both orders, did not keep to one winner: keep them,
    halve their weight, or drop them; the last two need `both_orders`."""
    emulator_qualities: Mapping[str, float] = Field(default_factory=dict)
    """Latent quality per essay id, in logits, for simulated judges only; never in any result."""

    @model_validator(mode="after")
    def _all_at_once_needs_one_wave(self) -> BatchSettings:
        if self.all_at_once and self.wave_size is not None:
            msg = "wave_size and all_at_once exclude each other: remove one of them"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _scoring_goes_together(self) -> BatchSettings:
        on = [
            key
            for key, is_on in (
                ("position_effect", self.position_effect == "on"),
                ("judge_discrimination", self.judge_discrimination == "on"),
                ("ties", self.ties == "davidson"),
                ("inconsistent_verdicts", self.inconsistent_verdicts == "halve"),
            )
            if is_on
        ]
        problems = []
        if self.scoring_engine == "choix" and on:
            problems.append(f"choix fits the plain model: leave {', '.join(on)} out, or use newton")
        if self.inconsistent_verdicts != "keep" and not self.both_orders:
            problems.append(
                f"inconsistent_verdicts: {self.inconsistent_verdicts} needs pairs shown in both"
                " orders: add `both_orders: true`"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _shares_fit_the_panel(self) -> BatchSettings:
        problem = shares_problem(self.judge_shares, self.judges) if self.judge_shares else None
        if problem is not None:
            raise ValueError(problem)
        if self.judge_choice == "by_worth" and self.judge_shares:
            msg = "judge_choice: by_worth works the shares out itself: leave judge_shares out"
            raise ValueError(msg)
        if self.judge_choice == "by_worth" and len(self.judges) < 2:
            msg = "judge_choice: by_worth needs several judges to choose from"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_head_start(self) -> BatchSettings:
        if self.rough_order and self.head_start is not None:
            msg = "rough_order is a head start already: leave it or head_start out"
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
    explicit = dict(explicit or {})
    by_hand, in_file = explicit.get("profile_set"), configured.get("profile_set")
    if isinstance(by_hand, Mapping) and isinstance(in_file, Mapping):
        explicit["profile_set"] = {**in_file, **by_hand}
    fields = BatchSettings.model_fields
    problems = [_unknown_key(key, "batch.yaml") for key in configured if key not in fields]
    problems += [
        _unknown_key(key, "settings given by hand") for key in explicit if key not in fields
    ]
    known = {k: v for k, v in configured.items() if k in fields}
    try:
        values = BatchSettings.model_validate(
            {**known, **{k: v for k, v in explicit.items() if k in fields}}
        )
    except ValidationError as error:
        problems += [
            f"batch.yaml: {'.'.join(map(str, e['loc'])) or 'settings'}:"
            f" {e['msg'].removeprefix('Value error, ')}"
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


def _unknown_key(key: object, where: str) -> str:
    return f"{where}: {unknown('key', str(key), BatchSettings.model_fields)}"


def scoring_rules(settings: BatchSettings) -> ScoringRules:
    """Return what a batch's settings say of its model."""
    from cj_pipeline.scale.scoring import ScoringRules

    is_plain = settings.scoring_engine == "choix"
    return ScoringRules(
        engine=settings.scoring_engine,
        position_effect="off" if is_plain else settings.position_effect,
        discrimination="off" if is_plain else settings.judge_discrimination,
        ties=settings.ties,
        inconsistent=settings.inconsistent_verdicts,
    )


def grading_terms(settings: BatchSettings, own_scale: str | None) -> GradingTerms | None:
    """Return what a batch is graded by; None where it names no scale.

    Args:
        settings: The batch's.
        own_scale: Its `scale.yaml`, where it has one.

    Raises:
        SettingsError: If the scale is unknown or its file is wrong.
    """
    if settings.scale is None:
        return None
    from cj_pipeline.grading.anchors import AnchorRules
    from cj_pipeline.grading.grade_scales import load_scale
    from cj_pipeline.grading.rules import GradingTerms

    return GradingTerms(
        scale=load_scale(settings.scale, own_scale),
        rules=AnchorRules(
            min_grades=settings.min_anchor_grades,
            min_separation_z=settings.min_anchor_separation_z,
            max_inversion_p=settings.max_inversion_p,
            max_disagreement=settings.max_anchor_disagreement,
            max_extrapolated_share=settings.max_extrapolated_share,
        ),
        use_priors=settings.use_priors,
    )

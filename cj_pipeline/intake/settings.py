"""The settings of a batch, their defaults, and where each value came from.

`ingestion` reads `batch.yaml` into this; every later step reads only the resolved settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cj_pipeline.batch.options import (
    BatchingMode,
    DependenceSwitch,
    GoalText,
    InconsistentPolicy,
    PeopleRules,
    PrecisionTargets,
    Priority,
    ScaledScores,
    ScoringEngine,
    Share,
    Strategy,
    Switch,
    Ties,
)
from cj_pipeline.ids import ID, unknown
from cj_pipeline.metrics.assertions import OwnAssertion
from cj_pipeline.pairing.judge_shares import shares_problem, shares_with_common

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from cj_pipeline.grading.rules import GradingTerms
    from cj_pipeline.scale.scoring import ScoringRules

Origin = Literal["built-in", "batch.yaml", "explicit"]
Column = Literal["essay_id", "name", "text", "grade", "group"]
Encoding = Literal[
    "windows-1252",
    "windows-1250",
    "windows-1251",
    "windows-1253",
    "windows-1254",
    "windows-1256",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-15",
    "mac-roman",
    "cp850",
    "koi8-r",
    "utf-16-le",
    "utf-16-be",
    "gb18030",
    "shift-jis",
]
"""The keys of `text.ENCODINGS`."""


class EarlierBatch(BaseModel):
    """A batch in the store whose scores guide the first pairs of this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Annotated[str, Field(pattern=ID)]


LONGEST_WAIT_S = 366 * 24 * 3600
"""A year: no wait that a batch may name is longer."""


class BatchSettings(BaseModel):
    """The keys of `batch.yaml` and their defaults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    title: str = ""
    """The batch's title, shown as the report's heading."""
    about: str = ""
    """A sentence or two about the batch, shown below the title."""
    assignment_id: str | None = None
    """Your own name or UUID of the assignment, for the artefact."""
    course_id: str | None = None
    """Your own name or UUID of the course, for the artefact."""
    language: str = "en"
    """The language of the essays, as a BCP 47 tag."""
    report_language: Literal["en", "sv", "de"] = "en"
    """The language of the report and of the class list's headings and remarks, numbers and dates
    too. Students' pages are in the essays' language where it is one of these."""
    how_to_appeal: str = ""
    """What a student's page says about appeals: to whom, how, and until when."""

    encoding: Encoding | None = None
    """The encoding of texts and tables that are neither UTF-8 nor marked as UTF-16. Without it,
    such a file is refused."""
    columns: Mapping[Column, str] = Field(default_factory=dict)
    """The headings of your tables' columns, where they are not among the words that are known."""
    accept: tuple[str, ...] = ()
    """Names of further files and folders that may lie in the batch folder and are not read; `*`
    stands for any letters."""
    n_essays: Annotated[int, Field(ge=1)] | None = None
    """How many essays there must be, anchors included. A folder in the inbox is opened only once it
    holds so many."""
    identical_texts: Literal["refuse", "share"] = "refuse"
    """What to do with identical texts. refuse: they are a problem. share: one of them is judged,
    and all get its result."""
    mask_names: bool = False
    """Mask the names of the class, as its register or its tables give them, in what judges are
    shown. Other people's names stay."""
    unknown_names: Literal["keep", "tell", "mask"] = "keep"
    """What to do with names that no register gives, guessed by lists of first names; needs the
    extra `names`. keep: they are not looked for. tell: `cj plan FOLDER --essays` shows them. mask:
    judges do not see them either. A guess misses some names and takes some words for names."""

    scale: str | None = None
    """The grade scale of the anchors' grades: a built-in one, or the one in the batch's own
    scale.yaml. Without a scale the batch ends with scores and ranks."""
    grades: Literal["anchors", "none"] = "anchors"
    """Where grades come from. none: the batch names a scale, has no anchors and is to end with
    scores and ranks."""
    use_priors: bool = False
    """Use the shares of grades that the scale has published. A student's grade then also depends on
    the grades of students elsewhere."""
    link_to: tuple[Annotated[str, Field(pattern=ID)], ...] = ()
    """Earlier batches on whose scale this one is placed, earliest first. They must share three or
    more anchors with it."""
    min_anchor_grades: Annotated[int, Field(ge=2, le=1_000_000)] = 2
    """Give no grades if the anchors have fewer different grades than this."""
    min_anchor_separation_z: Annotated[float, Field(ge=0, le=1_000)] = 1.64
    """Give no grades unless the anchors' scores rise with their grades by this many standard
    errors."""
    max_anchor_disagreement: Annotated[float, Field(gt=0, le=1_000)] = 1.5
    """Give no grades if the judge and the anchors' graders disagree by more grade steps than
    this."""
    max_extrapolated_share: Share = 0.5
    """Give no grades if more than this share of the students scores outside all anchors."""
    max_inversion_p: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Report two anchors that score against their grades if the probability of chance is below
    this."""
    judges: Annotated[tuple[str, ...], Field(min_length=1)] = ("quality",)
    """Names of the judges. Several judges are a panel."""
    common_pairs: Share = 0.2
    """The share of the pairs that all judges of a panel judge, from 0 to 1. Every other pair has
    one judge, in turn. Used without `judge_shares`."""
    judge_shares: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """The share of the pairs that each judge of a panel judges, from 0 to 1, instead of
    `common_pairs`. If the shares add up to 1, each pair has one judge; if to more, some have
    several."""
    judge_choice: Literal["shares", "by_worth"] = "shares"
    """How a panel's judges are chosen. shares: each gets its share. by_worth: each pair gets one
    judge, mostly the one whose verdicts have given the most information per USD so far."""
    people: PeopleRules = Field(default_factory=PeopleRules)
    """What is asked of the people among the judges (`provider: human`): which share of the pairs,
    and whether waves wait for them."""
    release: Literal["automatic", "needs_sign_off"] = "automatic"
    """needs_sign_off: grades are provisional until a person releases them (`cj release`)."""

    llm_batching_mode: BatchingMode = "provider_batch_api"
    """How requests are sent: single calls, calls in series, or the provider's batch endpoint."""
    llm_batching_mode_override: BatchingMode | None = None
    """The mode for this batch alone; overrides `llm_batching_mode` and is recorded as an
    override."""
    profile: str = "default"
    """The profile that limits single calls; `cj profile list` shows all profiles."""
    profile_set: Mapping[str, Any] = Field(default_factory=dict)
    """Fields of the profile, for this batch alone; they override the profile."""
    priority: Priority = "normal"
    """Which batch's single calls go first if several wait for the same provider."""
    all_at_once: bool = False
    """Spend the whole budget in one wave and score once."""
    strategy: Strategy = "adaptive"
    """How the next wave's pairs are chosen."""
    random_share: Share = 0.0
    """The share of each wave's pairs drawn at random once there are scores, from 0 to 1. Pairs that
    a strategy chooses by scores hardly tell how far essays lie apart; a quarter at random does, for
    about a tenth more comparisons to the same precision."""
    seed: int = 0
    """Decides ties among pairs and positions; the same seed gives the same wave."""
    goal: GoalText = "ranking"
    """What the pairs should make certain. ranking: every essay's rank. grades: on which side of a
    grade boundary each student's essay lies; needs a scale and anchors. top(10) or top(10%): who
    the best students are. cut(40%): who is among the best 40 %; cut(C): who has a C or better."""
    rough_order: tuple[tuple[str, ...], ...] = ()
    """Groups of essays that are thought to be alike, weakest group first; guides the first pairs
    only."""
    head_start: Literal["texts"] | EarlierBatch | None = None
    """What else guides the first pairs: texts (how varied their words are), or the scores of an
    earlier batch with the same texts or essay ids. It never affects a score."""
    both_orders: bool = False
    """Judge every chosen pair twice, once in each order. Each counts as a comparison."""
    may_repeat_pairs: bool = False
    """Allow pairs chosen by scores to be repeated before every pair was judged once."""

    max_pairwise_comparisons: Annotated[int, Field(ge=1, le=10_000_000)] = 120
    """The budget: at most this many comparisons; the batch may stop earlier."""
    wave_size: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Pairs per wave; by default half the number of essays."""
    waves: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Spend the budget in at most so many waves, in place of `wave_size`. Each waits for its
    provider once; large waves take some comparisons more to the same ranks."""
    spend_cap_usd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """The most the batch may cost, in USD. The worst case is reserved before each submission."""
    canary_requests: Annotated[int, Field(ge=0, le=50)] | None = None
    """How many single calls are sent before the first provider job of a judge that has given no
    verdict in this store yet. By default three for a real judge, none for a simulated one."""
    max_answers_without_verdict: Annotated[int, Field(ge=1, le=1000)] = 6
    """After so many paid answers of a judge in this batch without a single verdict, nothing more is
    asked of it until a person has looked."""
    anyway: bool = False
    """Start the batch although it is found beforehand that it cannot end with scores."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How many attempts a comparison gets before it counts as failed."""

    score_stability_threshold: Annotated[float, Field(gt=0, le=1_000)] | None = 0.025
    """Stop once no score has moved by more than this many logits between waves; `null`: never."""
    min_comparisons_for_stability_check: Annotated[int, Field(ge=1, le=10_000_000)] = 12
    """How many callbacks are needed before stability is checked."""
    scaled_scores: ScaledScores | None = None
    """Show scores on this scale too, as `{low: 0, high: 100}` or `{mean: 500, spread: 100}`. A
    linked batch is on the scale that the batch it is linked to fixes."""
    precise: PrecisionTargets | None = None
    """Stop once these targets are met; the rule we recommend."""
    min_success_rate: Share = 0.8
    """The share of comparisons that must succeed for the batch to count as complete."""
    min_resampling_net_size: Annotated[int, Field(ge=2, le=1_000_000)] = 3
    """The largest number of essays that counts as a small net, which is covered and resampled."""
    max_resampling_passes_for_small_net: Annotated[int, Field(ge=0, le=1_000)] = 4
    """How often a small net's pairs are judged again after every pair was judged once."""
    max_resampling_passes_for_regular_net: Annotated[int, Field(ge=0, le=1_000)] = 1
    """The same for a net that is not small."""
    mean_se_warning: Annotated[float, Field(gt=0, le=1_000)] = 0.4
    """Warn when the mean standard error of the scores is above this, in logits."""
    max_se_warning: Annotated[float, Field(gt=0, le=1_000)] = 0.8
    """Warn when the largest standard error of a score is above this, in logits."""
    stall_after_s: Annotated[float, Field(gt=0, le=LONGEST_WAIT_S)] = 36 * 3600
    """Seconds without news after which the batch is ended as stalled."""
    incomplete_after_s: Annotated[float, Field(gt=0, le=LONGEST_WAIT_S)] = 6 * 3600
    """How many seconds the batch waits for rows that a provider counts as done and has not sent.
    After that their cost is in doubt and the batch goes on without them."""

    assertions: tuple[OwnAssertion, ...] = ()
    """Conditions on metrics, as `cj metrics` names them. If one fails, no grades are published."""

    scoring_engine: ScoringEngine = "newton"
    """What fits the scores: our own Newton solver, or the library choix as an independent check.
    choix supports no position effects, discrimination or tie strengths."""
    position_effect: Switch = "auto"
    """Estimate each judge's position effect, in logits. auto: if its verdicts determine it to
    within half a logit; on: if they determine it at all; off: never."""
    judge_discrimination: Switch = "auto"
    """Estimate how strongly each judge of a panel discriminates between essays. auto: once each has
    given 50 verdicts; on: in every panel; off: never."""
    ties: Ties = "half-half"
    """How ties count: as half a win for each essay, or with a strength of their own (Davidson)."""
    inconsistent_verdicts: InconsistentPolicy = "keep"
    """What to do with the verdicts on a pair for which a judge named different winners in the two
    orders: keep them, halve their weight, or drop them. The last two need `both_orders`."""
    verdict_dependence: DependenceSwitch = "auto"
    """Count several verdicts on one pair, and several judges, for what they tell together. auto: by
    what their verdicts are found to share; off: each as if it told afresh."""
    emulator_qualities: Mapping[str, float] = Field(default_factory=dict)
    """Quality of each essay, by essay id, in logits. For simulated judges only; never in any
    result."""

    @model_validator(mode="after")
    def _one_way_to_size_waves(self) -> BatchSettings:
        given = {
            "wave_size": self.wave_size is not None,
            "waves": self.waves is not None,
            "all_at_once": self.all_at_once,
        }
        if sum(given.values()) > 1:
            named = " and ".join(name for name, is_given in given.items() if is_given)
            msg = f"{named} exclude each other: remove all but one of them"
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
        # Which judges are people, who have no share here, is known once they are loaded.
        named = [name for name in self.judges if name in self.judge_shares]
        problem = shares_problem(self.judge_shares, named) if self.judge_shares else None
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
        explicit: What the caller set explicitly (command line, run config); wins over the file.
    """
    explicit = _whole_keys(configured, explicit or {})
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
            f"batch.yaml: {'.'.join(map(str, e['loc'])) or 'settings'}: {_in_words(e)}{_hint(e)}"
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


def _whole_keys(configured: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is set by hand with parts of a key, as in `people.share`, put into the key."""
    whole = {key: value for key, value in explicit.items() if "." not in key}
    for key, value in explicit.items():
        head, dot, part = key.partition(".")
        if not dot:
            continue
        held = whole.get(head, configured.get(head))
        known = dict(held) if isinstance(held, Mapping) else {}
        whole[head] = known | {part: value}
    return whole


def usable_settings(
    configured: Mapping[str, Any], explicit: Mapping[str, Any] | None = None
) -> ResolvedSettings | None:
    """Return the settings without those that are wrong, so that the rest can be checked too.

    Arguments as for `resolve_settings`. None where nothing can be used.
    """
    fields = BatchSettings.model_fields
    given = _whole_keys(configured, explicit or {})
    kept = {k: v for k, v in {**configured, **given}.items() if k in fields}
    for _ in range(len(kept) + 1):
        try:
            return ResolvedSettings(BatchSettings.model_validate(kept), {})
        except ValidationError as error:
            wrong = {e["loc"][0] for e in error.errors() if e["loc"]}
            kept = {k: v for k, v in kept.items() if k not in wrong} if wrong else {}
    return None


_IN_WORDS = {
    "tuple_type": "it must be a list, as in `[one, another]`",
    "list_type": "it must be a list, as in `[one, another]`",
    "mapping_type": "it must be `key: value` pairs",
    "dict_type": "it must be `key: value` pairs",
    "model_type": "it must be `key: value` pairs",
    "string_type": "it must be a text: put it in quotes",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "missing": "it is missing",
    "extra_forbidden": "there is no such key",
}
"""What pydantic says in the words of programmers, by its kinds of errors."""


def _in_words(error: ErrorDetails) -> str:
    return _IN_WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))


def _hint(error: ErrorDetails) -> str:
    """Return what helps with a value that people often write otherwise; empty without any."""
    given = error["input"]
    if error["type"] == "extra_forbidden":
        return _keys_within(str(error["loc"][0]))
    if isinstance(given, str) and re.fullmatch(r"-?\d+,\d+", given.strip()):
        return f": write {given.strip().replace(',', '.')} with a point"
    if error["loc"] == ("precise",):
        target = given if isinstance(given, int | float) else 0.9
        return f": say what is to be so precise, as in `precise: {{reliability: {target}}}`"
    if isinstance(given, bool) and error["type"] == "string_type":
        return f", since YAML reads {given} there (yes, no, on and off are words to it)"
    if isinstance(given, float) and error["type"] == "int_from_float":
        return f": give {math.floor(given)} or {math.ceil(given)}"
    return ""


def _keys_within(setting: str) -> str:
    """Return which keys a setting of several parts has; empty for any other."""
    field = BatchSettings.model_fields.get(setting)
    for kind in (field.annotation, *get_args(field.annotation)) if field is not None else ():
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return f"; there are: {', '.join(kind.model_fields)}"
    return ""


def _unknown_key(key: object, where: str) -> str:
    return f"{where}: {unknown('key', str(key), BatchSettings.model_fields)}"


def panel_shares(settings: BatchSettings, judges: Sequence[str]) -> tuple[float, ...]:
    """Return the share of the pairs that each judge gets, from 0 to 1, in the order of `judges`.

    Where judges are chosen by information per USD these are the shares to begin with.
    """
    if settings.judge_choice == "by_worth":
        return (1 / len(judges),) * len(judges)
    if settings.judge_shares:
        return tuple(settings.judge_shares.get(judge, 1.0) for judge in judges)
    return shares_with_common(len(judges), settings.common_pairs)


def common_share(settings: BatchSettings) -> float | None:
    """Return the share of the pairs that all judges get; None where judges have own shares."""
    if settings.judge_choice == "by_worth" or settings.judge_shares:
        return None
    return settings.common_pairs


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
        dependence="off" if is_plain else settings.verdict_dependence,
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

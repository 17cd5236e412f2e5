"""Whether a batch can end with scores if its provider does all it is asked, and if not, why.

What stands in its way is found by its settings alone, before anything is requested: too few
comparisons to join the essays, limits that a wave cannot keep, a deadline before the provider's
own, a spend cap that is reached before the end. Each finding names the numbers to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cj_pipeline.batch.comparisons import ChosenPair, Role, max_possible_pairs
from cj_pipeline.judging.estimates import expected_usd, worst_case_usd
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.live.profiles import Profile, SharedRate, rate_of, unfinishable_wave, with_workers
from cj_pipeline.pairing.comparison_graph import ComparisonGraph
from cj_pipeline.planning.next_wave import next_comparisons
from cj_pipeline.provider_jobs.requests import BatchTexts, prompt_for
from cj_pipeline.queries.batch_record import BatchRecord, pairs_in_wave
from cj_pipeline.queries.comparison_graph import GraphSoFar
from cj_pipeline.stopping.continuation import completion_denominator

PROVIDER_WINDOW_S = 24 * 3600
"""What every provider's batch endpoint allows itself for a job."""

MIN_GRADES = 2
"""No boundary is seen from one grade alone, whatever `min_anchor_grades` says."""

_NO_BUDGET = 10_000_000
_MOST_ESSAYS_PRICED = 400
"""Essays whose prompts are built for the expected cost; of more, so many evenly spread."""


@dataclass(frozen=True)
class Obstacle:
    """What keeps a batch from ending with scores, and what to change."""

    about: str
    finding: str


@dataclass(frozen=True)
class CostEach:
    """What one comparison costs on average over a batch's judges and essays, in USD.

    Attributes:
        expected: By the length of its prompts, nothing cached.
        worst: What is reserved for it.
        dearest: What is reserved for the dearest.
    """

    expected: float
    worst: float
    dearest: float


def obstacles(record: BatchRecord, profile: Profile, texts: BatchTexts) -> list[Obstacle]:
    """Return everything that keeps a batch from ending with scores; empty where it can.

    Args:
        record: The batch, before anything was requested.
        profile: What bounds its single calls.
        texts: What its prompts are made of.
    """
    return [
        *_unjoined(record),
        *_limits(record, profile),
        *_deadlines(record),
        *_money(record, texts),
        *_anchors(record),
    ]


def _anchors(record: BatchRecord) -> Iterator[Obstacle]:
    """A scale is named for grades, and anchors of too few grades never give any.

    A batch that is linked to earlier ones has their anchors too.
    """
    terms, settings = record.grading_terms, record.settings
    if terms is None or settings.grades == "none" or settings.link_to:
        return
    n_grades, least = len(set(record.anchor_grades.values())), terms.rules.min_grades
    if n_grades >= least:
        return
    ways = [f"add anchors of {least - n_grades} more"]
    if n_grades >= MIN_GRADES:
        ways.append(f"set min_anchor_grades to {n_grades}")
    ways.append("take anchors and scale out for scores and ranks alone")
    yield Obstacle(
        "anchors",
        f"{len(record.anchor_grades)} anchors on {n_grades} grades of {terms.scale.name} never give"
        f" grades, which take anchors on at least {least}: {', or '.join(ways)}",
    )


def comparisons_to_join(record: BatchRecord) -> int | None:
    """Return the smallest budget whose pairs join all essays; None where no budget does."""
    least = _joined_after(_with_budget(record, _NO_BUDGET))
    if least is None:
        return None
    # The last wave of a smaller budget is cut otherwise, by at most the verdicts of one pair.
    lower = max(1, least - 2 * math.ceil(record.rules.verdicts_per_pair) - 1)
    for budget in range(lower, least + 4 * math.ceil(record.rules.verdicts_per_pair) + 2):
        if _joined_after(_with_budget(record, budget)) is not None:
            return budget
    return None


def _unjoined(record: BatchRecord) -> Iterator[Obstacle]:
    if _joined_after(record) is not None:
        return
    n, rules = len(record.essay_ids), record.rules
    ends_at = completion_denominator(n, rules)
    per_pair = rules.verdicts_per_pair * (2 if record.settings.both_orders else 1)
    spent_as = ""
    if per_pair > 1:
        orders = " in both orders" if record.settings.both_orders else ""
        spent_as = (
            f" ({per_pair:g} verdicts on a pair{orders}, so about"
            f" {math.floor(ends_at / per_pair + 1e-9)} pairs)"
        )
    ways = list(_ways_to_join(record))
    to_change = f": {', or '.join(ways)}" if ways else ""
    yield Obstacle(
        "budget",
        f"{ends_at} comparisons{spent_as} cannot join {n} essays into one net, which takes {n - 1}"
        f" pairs: it would end as unscalable, without scores{to_change}",
    )


def _ways_to_join(record: BatchRecord) -> Iterator[str]:
    least = comparisons_to_join(record)
    if least is not None:
        yield f"set max_pairwise_comparisons to at least {least}"
    if record.settings.both_orders:
        other = replace(record, settings=record.settings.model_copy(update={"both_orders": False}))
        if _joined_after(other) is not None:
            yield "leave both_orders out"
        wider = replace(record, settings=record.settings.model_copy(update={"wave_size": 2}))
        if record.settings.wave_size == 1 and _joined_after(wider) is not None:
            yield "set wave_size to at least 2"
    if record.rules.verdicts_per_pair > 1:
        once = replace(
            record,
            settings=record.settings.model_copy(update={"common_pairs": 0.0, "judge_shares": {}}),
        )
        if _joined_after(once) is not None:
            yield "ask one judge per pair (common_pairs: 0, without judge_shares)"


def _with_budget(record: BatchRecord, budget: int) -> BatchRecord:
    settings = record.settings.model_copy(update={"max_pairwise_comparisons": budget})
    return replace(record, settings=settings)


def _joined_after(record: BatchRecord) -> int | None:
    """Return after how many comparisons all essays are in one net; None where they never are.

    While the graph is in parts every strategy joins two of them by each pair, so it is enough to
    count: here each new pair joins the next essay to the first. How pairs are parted into waves
    changes nothing, but for waves too small to hold a pair in both orders.
    """
    n = len(record.essay_ids)
    if n < 2 or (record.settings.both_orders and pairs_in_wave(record) < 2):
        return None
    together = replace(record, settings=record.settings.model_copy(update={"all_at_once": True}))
    graph = ComparisonGraph(record.essay_ids, frozenset(record.anchor_grades), ())
    history = GraphSoFar(graph, (0,) * len(record.judges))
    met: set[str] = set()
    for asked, each in enumerate(next_comparisons(together, 1, history, choose=_join_next), 1):
        met.update((each.essay_a, each.essay_b))
        if len(met) == n:
            return asked
    return None


def _join_next(
    graph: ComparisonGraph, *, size: int, both_orders: bool, **_: object
) -> tuple[ChosenPair, ...]:
    ids = graph.essay_ids
    n_met = len({frozenset(pair) for pair in graph.shown})
    next_ones = ids[n_met + 1 : n_met + 1 + (size // 2 if both_orders else size)]
    return tuple(
        ChosenPair(first, second, Role.COVERAGE, None)
        for one in next_ones
        for first, second in ([(ids[0], one), (one, ids[0])] if both_orders else [(ids[0], one)])
    )


def wave_calls(record: BatchRecord) -> dict[str, int]:
    """Return the most comparisons that one wave requests of each judge, by judge id."""
    n = len(record.essay_ids)
    rules = record.rules
    ends_at = completion_denominator(n, rules)
    pairs: float = min(pairs_in_wave(record), max_possible_pairs(n))
    if record.settings.all_at_once:
        pairs = ends_at / rules.verdicts_per_pair
    pairs = min(pairs, ends_at / rules.verdicts_per_pair)
    return {
        judge.judge_id: math.ceil(pairs * share - 1e-9)
        for judge, share in zip(record.judges, record.shares, strict=True)
    }


def _limits(record: BatchRecord, profile: Profile) -> Iterator[Obstacle]:
    """Single calls to one account's model share its limits, whichever judge they are of."""
    if record.settings.batching_mode == "provider_batch_api":
        return
    if record.settings.batching_mode == "serial_bundle":
        profile = with_workers(profile, 1)
    calls = wave_calls(record)
    lanes: dict[tuple[object, ...], list[Judge]] = {}
    for judge in record.judges:
        lanes.setdefault(_lane(judge), []).append(judge)
    for judges in lanes.values():
        per_minute = [
            judge.limits["requests_per_minute"]
            for judge in judges
            if "requests_per_minute" in judge.limits
        ]
        rates = rate_of(profile)
        if per_minute:
            rates.append(SharedRate("requests_per_minute", min(per_minute), 60.0))
        n_calls = sum(calls[judge.judge_id] for judge in judges)
        names = [judge.name for judge in judges]
        for problem in unfinishable_wave(profile, n_calls, rates=rates, judges=names):
            yield Obstacle("limits", problem)


def _lane(judge: Judge) -> tuple[object, ...]:
    whose = judge.account or judge.key_variable
    return judge.provider, judge.base_url, whose, judge.model


def _deadlines(record: BatchRecord) -> Iterator[Obstacle]:
    settings = record.settings
    if settings.batching_mode != "provider_batch_api":
        return
    real = sorted({judge.provider for judge in record.judges if not judge.is_simulated})
    if real and settings.stall_after_s < PROVIDER_WINDOW_S:
        yield Obstacle(
            "deadlines",
            f"stall_after_s is {settings.stall_after_s:g}, and {', '.join(real)} may take"
            f" {PROVIDER_WINDOW_S} s (24 hours) for a job, so the batch could be ended before its"
            f" answers are due: set stall_after_s to at least {PROVIDER_WINDOW_S}, or"
            " llm_batching_mode to per_request or serial_bundle",
        )


def cost_each(record: BatchRecord, texts: BatchTexts) -> CostEach:
    """Return what a comparison costs, by the prompts of pairs in which every essay comes twice."""
    batched = record.settings.batching_mode == "provider_batch_api"
    ids: Sequence[str] = record.essay_ids
    if len(ids) > _MOST_ESSAYS_PRICED:
        ids = ids[:: math.ceil(len(ids) / _MOST_ESSAYS_PRICED)]
    longest = sorted(record.essay_ids, key=lambda essay: len(texts.essays[essay]))[-2:]
    pairs = list(zip(ids, [*ids[1:], ids[0]], strict=True))
    total = math.fsum(record.shares)
    expected = worst = dearest = 0.0
    for judge, share in zip(record.judges, record.shares, strict=True):
        prompts = [_prompt(record, judge, texts, *pair) for pair in pairs]
        most = _prompt(record, judge, texts, longest[0], longest[-1])
        part = share / total / len(prompts)
        expected += part * math.fsum(expected_usd(judge.price, p, batched=batched) for p in prompts)
        worst += part * math.fsum(
            worst_case_usd(judge.price, p, judge, batched=batched) for p in prompts
        )
        dearest = max(
            dearest,
            worst_case_usd(judge.price, most, judge, batched=batched),
        )
    return CostEach(expected, worst, dearest)


def _prompt(
    record: BatchRecord, judge: Judge, texts: BatchTexts, first: str, second: str
) -> Prompt:
    shown = {"comparison_id": record.batch_id, "essay_a": first, "essay_b": second}
    return prompt_for(record, judge, texts, shown)


@dataclass(frozen=True)
class Need:
    """What a batch has to be allowed to spend before it can end.

    Attributes:
        n_comparisons: That it asks before it can end.
        usd: For these: earlier waves at their bill, the last at its reservation.
        largest_wave_usd: What is reserved at once for a whole wave.
        each: What a comparison costs.
    """

    n_comparisons: int
    usd: float
    largest_wave_usd: float
    each: CostEach


def usd_needed_by(record: BatchRecord, texts: BatchTexts) -> Need:
    """Return what a batch needs; of one whose judges are all people, nothing may be asked here."""
    each, ends_at = cost_each(record, texts), _asked_at_least(record)
    wave = min(ends_at, sum(wave_calls(record).values()))
    return Need(ends_at, usd_needed(record, each, ends_at), _reserved(each, wave), each)


def usd_needed(record: BatchRecord, each: CostEach, n_comparisons: int) -> float:
    """Return the spend cap that lets so many comparisons be asked: earlier waves at their bill,
    the next at its reservation.
    """
    wave = max(1, sum(wave_calls(record).values()))
    return max(
        (
            each.expected * done + _reserved(each, min(wave, n_comparisons - done))
            for done in range(0, n_comparisons, wave)
        ),
        default=0.0,
    )


def _reserved(each: CostEach, n: int) -> float:
    """A wave of few comparisons may hold the dearest alone."""
    return max(each.worst * n, each.dearest)


def _money(record: BatchRecord, texts: BatchTexts) -> Iterator[Obstacle]:
    cap = record.settings.spend_cap_usd
    if cap is None or not record.judges:
        return
    need = usd_needed_by(record, texts)
    needed, ends_at = need.usd, need.n_comparisons
    if needed <= cap:
        return
    fitting = most_within(record, need.each, cap, ends_at)
    ways = [f"raise spend_cap_usd to at least {math.ceil(needed * 10_000) / 10_000:g}"]
    joins = comparisons_to_join(record)
    if joins is not None and fitting >= joins:
        ways.append(f"lower max_pairwise_comparisons to at most {fitting}")
    yield Obstacle(
        "money",
        f"{ends_at} comparisons need {needed:.4f} USD, of {cap:g} allowed: what is billed so far"
        " and the most that the next wave may cost. It would end as spend_cap, without scores:"
        f" {', or '.join(ways)}",
    )


def _asked_at_least(record: BatchRecord) -> int:
    """Return how many comparisons the batch asks before it can end: all, unless it may be precise.

    That a batch may turn out stable is no reason to count on it.
    """
    n = len(record.essay_ids)
    ends_at = completion_denominator(n, record.rules)
    rule = record.settings.precise
    if rule is None:
        return ends_at
    from cj_pipeline.queries.forecast_plan import plan_ahead
    from cj_pipeline.stopping.forecast import forecast_at_plan

    forecast = forecast_at_plan(n, rule, plan_ahead(record, None))
    return ends_at if forecast is None else min(ends_at, forecast.lower)


def most_within(record: BatchRecord, each: CostEach, cap: float, most: int) -> int:
    """Return the most comparisons that a spend cap lets be asked; 0 where none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if usd_needed(_with_budget(record, middle), each, middle) <= cap:
            low = middle
        else:
            high = middle - 1
    return low

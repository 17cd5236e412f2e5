"""What a batch would cost in each batching mode, before anything is spent: for `cj plan`.

Expected figures rest on what the store has seen of a judge, else on a rule of thumb for tokens and
on usual times; a pilot replaces the first by a few live calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import EXPECTED_ANSWER_TOKENS, Usage, cost_usd, estimated_tokens
from cj_pipeline.judging.prompt_caching import CachingPlan, plan_caching
from cj_pipeline.operations.pilot import Calibration, calibrate, judge_once, paid_trials
from cj_pipeline.planning.feasibility import wave_calls
from cj_pipeline.provider_jobs.requests import RequestSpec
from cj_pipeline.providers.base import Provider
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.forecast_plan import PastCalls, past_calls
from cj_pipeline.queries.live_profile import stored_profile
from cj_pipeline.runtime import Runtime
from cj_pipeline.stopping.continuation import completion_denominator
from cj_pipeline.store.session import Session

NOTHING_SEEN = PastCalls()

MODES: tuple[BatchingMode, ...] = ("provider_batch_api", "serial_bundle", "per_request")


@dataclass(frozen=True)
class ModeCost:
    """What one judge would cost in one mode.

    Attributes:
        judge: Who is asked.
        mode: How the comparisons are sent.
        n_comparisons: As many as the batch may ask this judge, retries not counted.
        tokens_each: In and out, about.
        expected_usd: Of all of them, what the provider's cache saves already taken off.
        worst_usd: The most they can cost, which is what would be reserved.
        caching: Whether the shared prefix is kept, and why.
        seconds: How long all of them take, from and to, at most as many waves as planned.
        time_from: What that rests on, in words.
        reasoning_from: What the expected answer's length rests on, in words.
    """

    judge: Judge
    mode: BatchingMode
    n_comparisons: int
    tokens_each: int
    expected_usd: float
    worst_usd: float
    caching: CachingPlan
    seconds: tuple[float, float]
    time_from: str
    reasoning_from: str

    @property
    def time(self) -> str:
        """How long it takes, in words."""
        return time_range(*self.seconds)


JOB_S = (1_800.0, 10_800.0)
"""Seconds a batch endpoint usually takes for a job; up to 24 hours are allowed to it."""

CALL_S = (2.0, 15.0)
"""Seconds a single call usually takes; models that reason at length take longer."""


def cost_by_mode(
    judge: Judge,
    asks: Sequence[RequestSpec],
    n_comparisons: int,
    concurrency: int = 1,
    *,
    n_waves: int = 1,
    past: PastCalls = NOTHING_SEEN,
) -> list[ModeCost]:
    """Return what a judge would cost in every mode its provider has.

    Args:
        judge: Who is asked.
        asks: Its share of the first wave, at least one; the rest is taken to be like it.
        n_comparisons: What it may be asked in all.
        concurrency: Single calls in flight at once, which find the provider's cache cold.
        n_waves: In how many waves, each of which waits for the one before.
        past: What the store has seen of the judge.
    """
    answer_tokens = round(past.answer_tokens or EXPECTED_ANSWER_TOKENS)
    tokens = [_prompt_tokens(ask) for ask in asks]
    usage = Usage(prompt=sum(tokens), completion=answer_tokens * len(asks))
    costs = []
    for mode in MODES:
        batched = mode == "provider_batch_api"
        if batched and not judge.has_jobs:
            continue
        caching = plan_caching(
            judge,
            asks[0].prompt,
            n_requests=len(asks),
            mode=mode,
            concurrency=concurrency if mode == "per_request" else 1,
        )
        saved = 0.0 if batched else max(0.0, caching.saved_usd)
        expected = (cost_usd(judge.price, usage, batched=batched) - saved) / len(asks)
        worst = max(worst_case_usd(judge.price, a.prompt, judge, batched=batched) for a in asks)
        costs.append(
            ModeCost(
                judge=judge,
                mode=mode,
                n_comparisons=n_comparisons,
                tokens_each=round(sum(tokens) / len(tokens)) + answer_tokens,
                expected_usd=expected * n_comparisons,
                worst_usd=worst * n_comparisons,
                caching=caching,
                seconds=_seconds(mode, n_comparisons, n_waves, concurrency, past),
                time_from=_time_from(batched=batched, past=past),
                reasoning_from=_reasoning_from(past),
            )
        )
    return costs


def usual_time(db: Session, batch_id: str) -> str:
    """Return in words how long a batch of the store takes at most, by its slowest judge.

    It rests on what the store has seen of its judges, and so can be told before the first answer.
    """
    record = load_batch(db, batch_id)
    in_a_wave = wave_calls(record)
    n_comparisons = completion_denominator(len(record.essay_ids), record.rules)
    # Waves that are sent together are all planned before the first answer.
    planned = db.one("SELECT count(*) AS n FROM comparison_pairs WHERE batch_id = ?", [batch_id])
    n_first = (planned["n"] if planned else 0) or sum(in_a_wave.values())
    n_waves = math.ceil(n_comparisons / max(1, n_first))
    mode, workers = record.settings.batching_mode, stored_profile(record.metadata).workers
    times = []
    for judge in record.judges:
        past, n_asked = past_calls(db, judge), in_a_wave[judge.judge_id] * n_waves
        seconds = _seconds(mode, n_asked, n_waves, workers, past)
        times.append((seconds, _time_from(batched=mode == "provider_batch_api", past=past)))
    (low, high), rests_on = max(times, key=lambda each: each[0][1])
    return f"{time_range(low, high)} ({rests_on})"


def _seconds(
    mode: BatchingMode, n_comparisons: int, n_waves: int, concurrency: int, past: PastCalls
) -> tuple[float, float]:
    """Return from and to; waves follow one another, and so do a serial bundle's calls."""
    if mode == "provider_batch_api":
        low, high = past.job_s or JOB_S
        return n_waves * low, n_waves * high
    low, high = past.call_s or CALL_S
    in_flight = concurrency if mode == "per_request" else 1
    n_turns = max(n_waves, math.ceil(n_comparisons / max(1, in_flight)))
    return n_turns * low, n_turns * high


def _time_from(*, batched: bool, past: PastCalls) -> str:
    if batched:
        return f"{past.n_jobs} jobs of this store" if past.job_s else "usual times"
    return f"{past.n_calls} calls of this store" if past.call_s else "usual times"


def _reasoning_from(past: PastCalls) -> str:
    if past.answer_tokens is None:
        return "without reasoning tokens: too few answers of it are stored; --pilot measures them"
    return f"with reasoning tokens: the mean of its {past.n_answers} stored answers"


def time_range(low_s: float, high_s: float) -> str:
    """Return a range of time in the unit that its upper end asks for, as `8 to 50 hours`."""
    units = ((7_200.0, 3_600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
    size, name = next((size, name) for least, size, name in units if high_s >= least)
    low, high = (f"{round(s / size, 1 if s < 10 * size else None):g}" for s in (low_s, high_s))
    return f"about {high} {name}" if low == high else f"{low} to {high} {name}"


def run_pilot(
    runtime: Runtime,
    provider: Provider,
    judge: Judge,
    asks: Sequence[RequestSpec],
    n_comparisons: int,
    *,
    mode: BatchingMode,
    concurrency: int = 1,
) -> Calibration:
    """Ask the first comparisons live and return what all of them will use, with an interval.

    Only what it cost is stored: the batch asks these comparisons again. The prefix is marked for
    the provider's cache where the batch's calls in this mode would mark it.

    Raises:
        SettingsError: If fewer than two calls told their usage.
        TransientError: If the provider did not answer.
        CeilingReachedError: If the operator does not allow the judge, or so much.
    """
    n_cold = concurrency if mode == "per_request" else 1
    caching = plan_caching(
        judge, asks[0].prompt, n_requests=n_comparisons, mode=mode, concurrency=n_cold
    )
    most = sum(worst_case_usd(judge.price, ask.prompt, judge, batched=False) for ask in asks)
    marks = caching.marks_prefix
    with paid_trials(runtime, [judge], len(asks), most) as trials:
        for ask in asks:
            trials.append(
                judge_once(provider, judge, ask.prompt, ask.comparison_id, "", cache_prefix=marks)
            )
    return calibrate(trials, n_comparisons, batched=mode == "provider_batch_api", n_cold=n_cold)


def _prompt_tokens(ask: RequestSpec) -> int:
    prompt = ask.prompt
    return estimated_tokens(len((prompt.system + prompt.prefix + prompt.essays).encode()))

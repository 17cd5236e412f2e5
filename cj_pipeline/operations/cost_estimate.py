"""What a batch would cost in each batching mode, before anything is spent: for `cj plan`.

Expected figures rest on a rule of thumb for tokens; a pilot replaces it by a few live calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import EXPECTED_ANSWER_TOKENS, Usage, cost_usd, estimated_tokens
from cj_pipeline.judging.prompt_caching import CachingPlan, plan_caching
from cj_pipeline.operations.pilot import Calibration, calibrate, judge_once, paid_trials
from cj_pipeline.provider_jobs.requests import RequestSpec
from cj_pipeline.providers.base import Provider
from cj_pipeline.runtime import Runtime

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
    """

    judge: Judge
    mode: BatchingMode
    n_comparisons: int
    tokens_each: int
    expected_usd: float
    worst_usd: float
    caching: CachingPlan


def cost_by_mode(
    judge: Judge, asks: Sequence[RequestSpec], n_comparisons: int, concurrency: int = 1
) -> list[ModeCost]:
    """Return what a judge would cost in every mode its provider has.

    Args:
        judge: Who is asked.
        asks: Its share of the first wave, at least one; the rest is taken to be like it.
        n_comparisons: What it may be asked in all.
        concurrency: Single calls in flight at once, which find the provider's cache cold.
    """
    tokens = [_prompt_tokens(ask) for ask in asks]
    usage = Usage(prompt=sum(tokens), completion=EXPECTED_ANSWER_TOKENS * len(asks))
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
                tokens_each=round(sum(tokens) / len(tokens)) + EXPECTED_ANSWER_TOKENS,
                expected_usd=expected * n_comparisons,
                worst_usd=worst * n_comparisons,
                caching=caching,
            )
        )
    return costs


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

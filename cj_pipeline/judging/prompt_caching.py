"""When keeping the shared prefix in a provider's cache pays, worked out before it is tried.

All comparisons of a batch begin alike (system prompt, task, instructions, rubric), so a provider
may read that prefix from a cache at a tenth of the price. Anthropic bills the writing of it above
the price of plain input, so a mark in the wrong place costs money; OpenAI and Gemini cache by
themselves. Prices are `money`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.batch.options import BatchingMode
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Usage, cost_usd, estimated_tokens
from cj_pipeline.judging.prompts import Prompt


@dataclass(frozen=True)
class CachingPlan:
    """What caching the prefix would cost and save over the requests that share it.

    Attributes:
        marks_prefix: Whether requests should mark the prefix to be cached.
        plain_usd: What the prefixes cost without a cache.
        cached_usd: What they are expected to cost with one.
        reason: Why it is or is not used, for people.
    """

    marks_prefix: bool
    plain_usd: float
    cached_usd: float
    reason: str

    @property
    def saved_usd(self) -> float:
        """What caching saves; negative where it would cost."""
        return self.plain_usd - self.cached_usd


def plan_caching(
    judge: Judge, prompt: Prompt, *, n_requests: int, mode: BatchingMode, concurrency: int = 1
) -> CachingPlan:
    """Return whether to keep a prefix in the provider's cache, with the sums it rests on.

    Args:
        judge: Its provider and prices decide.
        prompt: Any prompt of the batch; the prefix is alike in all.
        n_requests: How many requests share it.
        mode: How they are sent.
        concurrency: How many are in flight at once; that many find the cache empty.
    """
    n_bytes = len(prompt.system.encode()) + len(prompt.prefix.encode())
    tokens = estimated_tokens(n_bytes)
    asks_for_it = judge.api == "messages"
    n_cold = _cold_requests(n_requests, mode, concurrency)
    batched = mode == "provider_batch_api"
    plain = cost_usd(judge.price, Usage(prompt=tokens * n_requests), batched=batched)
    read = tokens * (n_requests - n_cold)
    written = tokens * n_cold if asks_for_it else 0
    usage = Usage(prompt=tokens * n_requests, cached=read, cache_write_5m=written)
    cached = cost_usd(judge.price, usage, batched=batched)

    shortest = judge.price.cacheable_from
    if tokens < shortest:
        reason = f"the prefix has about {tokens} tokens; {judge.model} keeps none under {shortest}"
        return CachingPlan(False, plain, plain, reason)
    if not asks_for_it:
        reason = "the provider caches the prefix by itself and does not bill writing it"
        return CachingPlan(False, plain, cached, reason)
    if cached >= plain:
        reason = f"writing it {n_cold} times would cost more than reading it would save"
        return CachingPlan(False, plain, cached, reason)
    reason = f"written {n_cold} times and read {n_requests - n_cold} times it is cheaper"
    return CachingPlan(True, plain, cached, reason)


def _cold_requests(n_requests: int, mode: BatchingMode, concurrency: int) -> int:
    """Return how many requests find nothing in the cache yet.

    Inside a provider's batch all of them may: cold batches with a shared prefix have been seen
    to read nothing at all, so nothing is counted on.
    """
    if mode == "provider_batch_api":
        return n_requests
    return min(n_requests, 1 if mode == "serial_bundle" else concurrency)

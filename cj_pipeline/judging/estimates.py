"""What a comparison may cost before it is requested: the bound to reserve, and the expectation.

Prices and the meaning of usage are `pricing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cj_pipeline.judging.pricing import (
    _PER,
    _REQUEST_OVERHEAD_TOKENS,
    EXPECTED_ANSWER_TOKENS,
    FULL_PRICE,
    Price,
    Usage,
    cost_usd,
    estimated_tokens,
    prompt_bytes,
)

if TYPE_CHECKING:
    from cj_pipeline.judging.judges import Judge
    from cj_pipeline.judging.prompts import Prompt


def worst_case_usd(price: Price, prompt: Prompt, judge: Judge, *, batched: bool) -> float:
    """Return the most that one request can cost, in USD: what is reserved before it is sent.

    Every byte of the prompt counts as a token, which no byte-level tokenizer can exceed, nothing
    is read from a cache, everything may be written to one, the answer is as long as allowed, and it
    comes at the dearest time of day.
    """
    n_bytes = prompt_bytes(prompt)
    share = price.batched if batched else FULL_PRICE
    dearest = max(
        price.input * share.input,
        price.cached_input * share.cached_input,
        # Also where no prefix is marked for caching: some providers write caches unasked.
        price.cache_write_5m * share.cache_write,
    )
    most = (n_bytes + _REQUEST_OVERHEAD_TOKENS) * dearest
    most += judge.settings.max_output_tokens * price.output * share.output
    if not batched:
        most *= price.dearest_hour
    return float(most / _PER)


def expected_usd(price: Price, prompt: Prompt, *, batched: bool) -> float:
    """Return what one request is expected to cost, in USD: by its length, nothing cached.

    Reasoning is not in it, because it is not known beforehand; a pilot measures it.
    """
    usage = Usage(prompt=estimated_tokens(prompt_bytes(prompt)), completion=EXPECTED_ANSWER_TOKENS)
    return cost_usd(price, usage, batched=batched)

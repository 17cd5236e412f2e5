"""What an answer says of its own tokens, and whether that can be believed; pure.

Services count in different ways: reasoning inside the output or beside it, cached input inside the
prompt or beside it. Where they tell a total, it decides; where they do not, a part that is larger
than its whole cannot be inside. What does not add up in any way contradicts itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cj_pipeline.judging.pricing import Usage

MOST_TOKENS = 10**9
"""More than any request can have."""

HIDDEN_PROMPT_TOKENS = 4_000
"""What a service may add to a prompt: a system prompt of its own, the schema, role markers."""

MOST_BYTES_PER_TOKEN = 40
"""No token of any vocabulary in use is longer on average over a whole text."""


class UsageEvidence(StrEnum):
    """What an answer's word on its tokens is worth, as stored."""

    REPORTED = "reported"
    NOT_REPORTED = "not_reported"
    CONTRADICTORY = "contradictory"


@dataclass(frozen=True)
class UsageReading:
    """An answer's usage in our meaning; None where it reports none."""

    usage: Usage | None
    evidence: UsageEvidence


NOT_REPORTED = UsageReading(None, UsageEvidence.NOT_REPORTED)


@dataclass(frozen=True)
class SentCounts:
    """The figures as a service sent them; each as it came, whatever type it has.

    Attributes:
        prompt: Input.
        completion: Output.
        cached: Input read from a cache.
        written_5m: Input written to a cache that lives for minutes.
        written_1h: Input written to one that lives for an hour or longer.
        reasoning: Output that is never shown.
        total: All of it, where the service tells one.
        cache_is_beside: Whether by this service's documents cached input is not in `prompt`.
        reasoning_is_beside: Whether by them reasoning is not in `completion`.
    """

    prompt: object
    completion: object
    cached: object = None
    written_5m: object = None
    written_1h: object = None
    reasoning: object = None
    total: object = None
    cache_is_beside: bool = False
    reasoning_is_beside: bool = False


def read_usage(sent: SentCounts) -> UsageReading:
    """Return what was used, and whether the figures agree with each other.

    Where they do not, the most that they can mean is returned.
    """
    figures = [
        _number(each)
        for each in (
            sent.prompt,
            sent.completion,
            sent.cached,
            sent.written_5m,
            sent.written_1h,
            sent.reasoning,
            sent.total,
        )
    ]
    is_odd = any(figure is None for figure in figures)
    prompt, completion, cached, written_5m, written_1h, reasoning, total = (
        figure or 0 for figure in figures
    )
    if prompt == 0 and not (sent.cache_is_beside and cached + written_5m + written_1h):
        return NOT_REPORTED
    kept = cached + written_5m + written_1h
    for cache_beside, reasoning_beside in _arrangements(sent):
        whole_prompt = prompt + kept * cache_beside
        whole_completion = completion + reasoning * reasoning_beside
        fits = kept <= whole_prompt and reasoning <= whole_completion
        adds_up = total in {0, whole_prompt + whole_completion}
        if fits and adds_up and not is_odd:
            usage = Usage(whole_prompt, cached, written_5m, written_1h, whole_completion, reasoning)
            return UsageReading(usage, UsageEvidence.REPORTED)
    most = Usage(
        max(prompt + kept, total - completion - reasoning),
        cached,
        written_5m,
        written_1h,
        completion + reasoning,
        reasoning,
    )
    return UsageReading(most, UsageEvidence.CONTRADICTORY)


def is_far_from(usage: Usage, n_prompt_bytes: int | None, n_answer_bytes: int) -> bool:
    """Whether an answer's usage cannot be that of what was sent and what came back.

    Args:
        usage: As the answer tells it.
        n_prompt_bytes: The size of the prompt in UTF-8; None where it is not known.
        n_answer_bytes: The same of the answer's text.
    """
    if usage.completion * MOST_BYTES_PER_TOKEN < n_answer_bytes:
        return True
    if n_prompt_bytes is None:
        return False
    # No byte-level tokenizer makes more tokens of a text than it has bytes.
    is_too_much = usage.prompt > n_prompt_bytes + HIDDEN_PROMPT_TOKENS
    return is_too_much or usage.prompt * MOST_BYTES_PER_TOKEN < n_prompt_bytes


def _arrangements(sent: SentCounts) -> Iterator[tuple[bool, bool]]:
    """Yield whether cache and reasoning are beside, first as the service's documents say."""
    for cache_beside in (sent.cache_is_beside, not sent.cache_is_beside):
        for reasoning_beside in (sent.reasoning_is_beside, not sent.reasoning_is_beside):
            yield cache_beside, reasoning_beside


def _number(sent: object) -> int | None:
    """Return a count, also where it came as text or with a decimal point; None for nonsense."""
    if sent is None or sent is False:
        return 0
    if isinstance(sent, str) and re.fullmatch(r"\s*\d{1,12}(\.0*)?\s*", sent):
        sent = float(sent)
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not math.isfinite(sent):
        return None
    return int(sent) if 0 <= sent <= MOST_TOKENS and sent == int(sent) else None

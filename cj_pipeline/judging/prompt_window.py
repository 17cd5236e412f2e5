"""Prompts that a server cut to its window before its model read them, told by the tokens counted.

A local server with a small window cuts long prompts and says nothing: its model judges halves of
essays. What gives it away is that requests of different sizes count the same tokens, the size of
the window, and fewer than this judge makes of texts of that size. One row alone proves nothing.

The thresholds are here and nowhere else. They were tried on English, Swedish, German, Finnish,
Spanish, Arabic, Hindi, Tamil, Chinese and Japanese prose at 2.5 to 10 bytes a token; what they
miss and what they take for cut is measured in the decision record on cut prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_ALIKE = 3
"""Requests that must count the same tokens before a window is believed in."""

ALIKE_TOKENS, ALIKE_SHARE = 2, 0.0005
"""How close counts are that are taken for the same window: a server may keep a few tokens free."""

LEAST_SPREAD = 1.02
"""How much larger than the smallest of them the largest must be: alike requests count alike."""

SHARE_OF_OWN_RATIO = 1.0
"""Of the tokens a byte that this judge makes of requests that fit, a cut one shows fewer."""

MOST_TOKENS_PER_BYTE = 1 / 4
"""Where no request fits, a cut one counts fewer than this."""


@dataclass(frozen=True)
class SentAndCounted:
    """One request: what was sent, in bytes of UTF-8, and what was counted of it, in tokens."""

    n_bytes: int
    n_tokens: int


@dataclass(frozen=True)
class PromptWindow:
    """A window that prompts were cut to, in tokens, and what this judge otherwise makes of a byte.

    `own_ratio` is in tokens per byte; None where every request was cut.
    """

    n_tokens: int
    own_ratio: float | None

    def cuts(self, request: SentAndCounted) -> bool:
        """Whether a request was shown to the model only in part."""
        if not _are_alike(request.n_tokens, self.n_tokens) or request.n_bytes <= 0:
            return False
        least = MOST_TOKENS_PER_BYTE
        if self.own_ratio is not None:
            least = self.own_ratio * SHARE_OF_OWN_RATIO
        return request.n_tokens / request.n_bytes < least


def find_window(requests: Sequence[SentAndCounted]) -> PromptWindow | None:
    """Return the window that a judge's prompts were cut to; None where nothing speaks for one.

    Args:
        requests: Of one judge in one batch, those whose usage was reported.
    """
    if len(requests) < LEAST_ALIKE:
        return None
    largest = max(request.n_tokens for request in requests)
    at_the_end = [request for request in requests if _are_alike(request.n_tokens, largest)]
    sizes = [request.n_bytes for request in at_the_end]
    if len(at_the_end) < LEAST_ALIKE or max(sizes) < LEAST_SPREAD * min(sizes):
        return None
    below = [
        request.n_tokens / request.n_bytes
        for request in requests
        if not _are_alike(request.n_tokens, largest) and request.n_bytes > 0
    ]
    window = PromptWindow(largest, median(below) if len(below) >= LEAST_ALIKE else None)
    n_cut = sum(window.cuts(request) for request in at_the_end)
    return window if n_cut >= LEAST_ALIKE else None


def _are_alike(n_tokens: int, window: int) -> bool:
    return 0 <= window - n_tokens <= max(ALIKE_TOKENS, ALIKE_SHARE * window)

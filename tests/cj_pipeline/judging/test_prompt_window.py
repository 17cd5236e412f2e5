"""Prompts that a server cut in silence: what gives them away, and both kinds of error."""

from __future__ import annotations

import random

import pytest

from cj_pipeline.judging.prompt_window import SentAndCounted, find_window

BYTES_PER_TOKEN = {
    "English": 4.6,
    "Swedish": 3.9,
    "German": 4.1,
    "Finnish": 3.4,
    "Spanish": 4.3,
    "Arabic": 4.4,
    "Hindi": 6.5,
    "Tamil": 9.0,
    "Chinese": 4.0,
    "Japanese": 3.6,
}
"""About what the vocabularies of current models make of prose; essays differ by 6 % within it."""


def batch(language: str, rng: random.Random, n: int, window: int | None) -> list[SentAndCounted]:
    """Return a batch's requests: pairs of essays of 1,500 to 4,500 characters and instructions."""
    letters = {"Hindi": 2.7, "Tamil": 2.8, "Chinese": 3.0, "Japanese": 3.0, "Arabic": 1.9}
    found = []
    for _ in range(n):
        n_bytes = int(rng.uniform(1_500, 4_500) + rng.uniform(1_500, 4_500) + 1_200) * 1.0
        n_bytes *= letters.get(language, 1.05)
        n_tokens = int(n_bytes / (BYTES_PER_TOKEN[language] * rng.gauss(1, 0.06)))
        if window is not None and n_tokens > window:
            n_tokens = window - rng.choice((0, 0, 0, 1))
        found.append(SentAndCounted(int(n_bytes), n_tokens))
    return found


def errors(window_share: float | None, *, seed: int) -> tuple[int, int, int, int]:
    """Return false alarms of whole prompts, misses of cut ones, over batches in all languages."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    alarms = n_whole = misses = n_cut = 0
    for language in BYTES_PER_TOKEN:
        for n in (6, 12, 60, 300):
            whole = batch(language, rng, n, None)
            tokens = sorted(request.n_tokens for request in whole)
            limit = None if window_share is None else int(tokens[-1] * window_share)
            shown = [SentAndCounted(r.n_bytes, min(r.n_tokens, limit or r.n_tokens)) for r in whole]
            window = find_window(shown)
            for before, after in zip(whole, shown, strict=True):
                is_cut = after.n_tokens < before.n_tokens
                is_told = window is not None and window.cuts(after)
                n_cut += is_cut
                n_whole += not is_cut
                misses += is_cut and not is_told
                alarms += is_told and not is_cut
    return alarms, n_whole, misses, n_cut


def test_whole_prompts_are_never_taken_for_cut() -> None:
    """A false alarm is a paid verdict lost."""
    found = [errors(None, seed=seed) for seed in range(5)]

    assert sum(n_whole for _, n_whole, _, _ in found) == 5 * 10 * 378
    assert sum(alarms for alarms, _, _, _ in found) == 0


@pytest.mark.parametrize(
    ("share", "most_missed"), [(0.3, 0.01), (0.5, 0.06), (0.7, 0.25), (0.85, 0.60)]
)
def test_most_prompts_that_lost_a_part_are_told(share: float, most_missed: float) -> None:
    """With a window of this share of the longest prompt; the less is cut the more is missed."""
    alarms, n_whole, misses, n_cut = errors(share, seed=11)

    assert n_cut > 100
    assert misses <= most_missed * n_cut, (misses, n_cut)
    assert alarms <= 0.01 * n_whole


def test_sixty_of_sixty_halves_of_essays_are_told() -> None:
    """A local server with a window of 4,096 tokens; every prompt is longer than that."""
    rng = random.Random(3)  # noqa: S311 - no secret
    cut = [SentAndCounted(int(rng.uniform(30_000, 40_000)), 4_096) for _ in range(60)]

    window = find_window(cut)

    assert window is not None
    assert window.n_tokens == 4_096
    assert all(window.cuts(request) for request in cut)


def test_alike_requests_and_alike_counts_prove_nothing() -> None:
    """Essays of one length count the same, and a server may count by a rule of thumb."""
    assert find_window([SentAndCounted(2_400, 600)] * 50) is None
    assert find_window([SentAndCounted(2_400 + 30 * i, 1_000) for i in range(50)]) is None
    assert find_window([SentAndCounted(40_000, 4_096)] * 2) is None
    assert find_window([]) is None

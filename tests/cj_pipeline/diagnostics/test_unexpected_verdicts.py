"""Verdicts against the final scores."""

from __future__ import annotations

from typing import Any

import pytest

from cj_pipeline.diagnostics.unexpected_verdicts import unexpected_verdicts

SCORES = {"weak": -1.0, "strong": 1.0}


def verdict(winner: str | None, loser: str | None, sequence: int = 1) -> dict[str, Any]:
    """Return a comparison as stored; without a winner it is a tie."""
    return {
        "winner": "A" if winner else "tie",
        "winner_id": winner,
        "loser_id": loser,
        "sequence": sequence,
    }


def test_a_weak_essays_win_over_a_strong_one_is_a_surprise() -> None:
    """Two logits apart, it happens in 12 of 100 comparisons."""
    verdicts = [verdict("weak", "strong"), verdict("strong", "weak")]

    (found,) = unexpected_verdicts(verdicts, SCORES, below=0.2)

    assert found.comparison["winner_id"] == "weak"
    assert found.probability == pytest.approx(0.1192, abs=1e-4)


def test_a_tie_surprises_nobody() -> None:
    """It has no winner whose chance could be small."""
    assert unexpected_verdicts([verdict(None, None)], SCORES, below=1.0) == []


def test_the_least_likely_comes_first_then_the_earlier() -> None:
    """So that the same rows give the same list."""
    scores = SCORES | {"weaker": -2.0}
    verdicts = [
        verdict("weak", "strong", 3),
        verdict("weak", "strong", 1),
        verdict("weaker", "strong", 2),
    ]

    found = unexpected_verdicts(verdicts, scores, below=0.2)

    assert [surprise.comparison["sequence"] for surprise in found] == [2, 1, 3]

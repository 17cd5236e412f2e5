"""A scan of groups finds what is there, and says nothing of chance."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.diagnostics.group_differences import group_differences, text_effects


def simulated(
    shift: float, *, seed: int, n: int = 40
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return scores of students in two groups, the second of which scores higher by `shift`."""
    rng = np.random.default_rng(seed)
    ids = [f"s{i}" for i in range(n)]
    groups = {essay_id: ["8a" if i % 2 else "8b"] for i, essay_id in enumerate(ids)}
    scores = {e: float(rng.normal(shift * (groups[e] == ["8a"]), 1.0)) for e in ids}
    return scores, groups


def test_groups_that_do_not_differ_are_seldom_called_apart() -> None:
    """In no more than one scan of twenty."""
    scans = [group_differences(*simulated(0.0, seed=seed)) for seed in range(400)]

    share = np.mean([any(each.is_beyond_chance for each in scan) for scan in scans])

    assert 0 < share <= 0.06


def test_a_group_that_differs_is_found_with_its_interval() -> None:
    """And the interval holds the truth."""
    found = [
        each
        for seed in range(60)
        for each in group_differences(*simulated(1.5, seed=seed))
        if each.name == "8a"
    ]

    assert np.mean([each.is_beyond_chance for each in found]) > 0.95
    assert np.mean([each.lower <= 1.5 <= each.upper for each in found]) >= 0.9


def test_small_groups_are_left_out() -> None:
    """Four students are four persons, and no group."""
    scores, _ = simulated(0.0, seed=1)
    groups = {essay_id: ["x" if i < 4 else "y"] for i, essay_id in enumerate(scores)}

    assert group_differences(scores, groups) == []


def test_against_people_is_a_difference_of_differences() -> None:
    """Judges a step too high for one group alone show, whatever the groups' own level."""
    scores, groups = simulated(0.0, seed=2)
    apart = {
        e: 1.0 + 0.1 * (i % 3) if groups[e] == ["8a"] else 0.1 * (i % 3)
        for i, e in enumerate(scores)
    }

    (a,) = [each for each in group_differences(scores, groups, apart) if each.name == "8a"]

    assert a.against_people == pytest.approx(1.0, abs=0.05)
    assert a.against_people_error is not None
    assert a.against_people_error < 0.1


def test_length_that_goes_with_scores_is_told_from_variety() -> None:
    """Long repetitive texts are long, and not varied."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(20, 400, 60)
    texts = {
        f"s{i}": " ".join(f"w{int(w)}" for w in rng.integers(0, 5000, n))
        for i, n in enumerate(lengths)
    }
    scores = {f"s{i}": float(np.log(n) + rng.normal(0, 0.2)) for i, n in enumerate(lengths)}

    effects = {each.what: each for each in text_effects(scores, texts)}

    assert effects["length"].correlation > 0.9
    assert effects["length"].lower > 0.8
    assert text_effects({"a": 1.0}, {"a": "one"}) == []

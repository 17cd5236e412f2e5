"""A later batch on an earlier scale: the shift, the drift, and one covariance for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import UnscalableBatchError
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.linking import link_batches
from cj_pipeline.grading.projection import project_grades
from cj_pipeline.scale.bradley_terry import Scale, fit_bradley_terry

Floats = NDArray[np.float64]

ANCHORS = tuple(f"anchor-{i}" for i in range(8))
ANCHOR_QUALITY = dict(zip(ANCHORS, np.linspace(-2.5, 2.5, 8).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Given:
    """Scores as given, for cases done by hand."""

    essay_ids: tuple[str, ...]
    scores: Floats
    covariance: Floats


def given(essay_ids: str, *scores: float, standard_error: float = 0.3) -> Given:
    """Return mean-centred scores with independent errors."""
    n = len(scores)
    values = np.array(scores) - np.mean(scores)
    return Given(tuple(essay_ids.split()), values, standard_error**2 * (np.eye(n) - 1 / n))


def judged_batch(quality: dict[str, float], per_essay: int, seed: int) -> Scale:
    """Return the scale of a batch judged on random pairs, as the model says they fall."""
    rng = np.random.default_rng(seed)
    ids = list(quality)
    pairs = []
    for _ in range(per_essay):
        order = rng.permutation(len(ids)).tolist()
        for i, j in zip(order[::2], order[1::2], strict=False):
            p = 1 / (1 + np.exp(quality[ids[j]] - quality[ids[i]]))
            pairs.append(JudgedPair(ids[i], ids[j], "A" if rng.random() < p else "B"))
    return fit_bradley_terry(ids, pairs)


def students(prefix: str, mean: float, seed: int) -> dict[str, float]:
    """Return the quality of thirty students around a mean."""
    rng = np.random.default_rng(seed)
    return {f"{prefix}-{i:02d}": float(mean + 1.3 * rng.standard_normal()) for i in range(30)}


def test_the_shift_is_what_shared_anchors_moved_by() -> None:
    """By hand: three anchors, the later batch's zero a logit lower because of a strong student."""
    earlier = given("a b c s", 0.0, 1.0, 2.0, 1.0)
    later = given("a b c t", 0.0, 1.0, 2.0, 5.0)

    linked = link_batches(earlier, later, ["a", "b", "c"])

    # Three anchors leave the later judge's unit a little open, and what is usual closes it.
    assert linked.shift == pytest.approx(1.0, abs=0.15)
    at = linked.essay_ids.index("t")
    assert linked.scores[at] - linked.scores[0] == pytest.approx(5.0, abs=0.5)
    assert linked.essay_ids == ("a", "b", "c", "s", "t")


def test_anchors_judged_twice_are_surer_and_the_earlier_mean_stays() -> None:
    """The same differences seen twice, anchors being held to drift a little; the zero stays."""
    earlier = given("a b c s", 0.0, 1.0, 2.0, 1.0)
    later = given("a b c t", 0.0, 1.0, 2.0, 5.0)

    linked = link_batches(earlier, later, ["a", "b", "c"])

    def difference(covariance: Floats) -> float:
        return float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])

    shrunk = difference(linked.covariance) / difference(earlier.covariance)
    assert 0.5 < shrunk < 0.8
    assert linked.scores[:4].mean() == pytest.approx(0.0)


def test_both_batches_land_on_one_scale() -> None:
    """A weaker class a term later: its students' scores on the earlier scale are off by no more
    than their own errors say, the level included."""
    first, second = students("first", 0.5, 1), students("second", -1.0, 2)
    earlier = judged_batch(ANCHOR_QUALITY | first, 30, 11)
    later = judged_batch(ANCHOR_QUALITY | second, 30, 12)

    linked = link_batches(earlier, later, ANCHORS)

    truth = ANCHOR_QUALITY | first | second
    zero = np.mean([truth[essay] for essay in earlier.essay_ids])
    off = linked.scores - (np.array([truth[essay] for essay in linked.essay_ids]) - zero)
    z = off / np.sqrt(np.diag(linked.covariance))
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.4)
    assert abs(np.mean(off[38:])) < 3 * linked.shift_standard_error


def test_an_anchor_that_moved_is_told_and_does_not_tie() -> None:
    """Judges now see it three logits higher: the link is as if it had not been there."""
    second = students("second", 0.0, 4)
    earlier = judged_batch(ANCHOR_QUALITY | students("first", 0.0, 3), 40, 13)
    later = judged_batch(ANCHOR_QUALITY | {"anchor-3": 2.5} | second, 40, 14)

    linked = link_batches(earlier, later, ANCHORS)

    worst = linked.drifts[0]
    assert worst.essay_id == "anchor-3"
    assert worst.is_drifted
    assert worst.drift == pytest.approx(
        2.5 - ANCHOR_QUALITY["anchor-3"], abs=4 * worst.standard_error
    )
    assert not any(each.is_drifted for each in linked.drifts[1:])
    assert "'anchor-3' (+" in linked.statement


def test_a_judge_that_tells_essays_apart_less_well_is_noticed() -> None:
    """The later judge sees half the differences: its logits are another unit."""
    first = students("first", 0.0, 5)
    wide = {essay: 1.6 * q for essay, q in (ANCHOR_QUALITY | first).items()}
    narrow = {essay: 0.6 * q for essay, q in (ANCHOR_QUALITY | students("second", 0.0, 6)).items()}
    steep, flat = judged_batch(wide, 120, 15), judged_batch(narrow, 120, 16)

    try:
        statement = link_batches(steep, flat, ANCHORS).statement
    except UnscalableBatchError as refused:
        statement = str(refused)

    assert "separate essays" in statement or "tie nothing" in statement


def test_too_few_shared_anchors_tie_nothing() -> None:
    """Two anchors can be seen to disagree, but not which of them moved."""
    earlier, later = given("a b s", 0.0, 1.0, 2.0), given("a b t", 0.0, 1.0, 2.0)

    with pytest.raises(UnscalableBatchError, match=r"share 2 anchors \(a, b\), and 3 are needed"):
        link_batches(earlier, later, ["a", "b", "c"])


def test_anchors_that_all_moved_apart_are_refused() -> None:
    """Another prompt, another judge: nothing is left to tie by."""
    earlier = given("a b c d s", 0.0, 1.0, 2.0, 3.0, 1.0, standard_error=0.05)
    later = given("a b c d t", 3.0, 0.0, 4.0, -2.0, 1.0, standard_error=0.05)

    with pytest.raises(UnscalableBatchError, match="moved against the others"):
        link_batches(earlier, later, ["a", "b", "c", "d"])


def test_a_link_is_graded_like_any_batch_and_links_on() -> None:
    """Students of the later batch are graded by anchors that only the earlier one judged, and a
    third batch can be tied to both."""
    few = {anchor: ANCHOR_QUALITY[anchor] for anchor in ANCHORS[1:7]}
    earlier = judged_batch(ANCHOR_QUALITY | students("first", 0.0, 7), 30, 17)
    later = judged_batch(few | students("second", 0.0, 8), 30, 18)
    third = judged_batch(ANCHOR_QUALITY | students("third", 0.0, 9), 30, 19)
    scale = GradeScale("four", "Four grades", grades=("D", "C", "B", "A"))
    known = {anchor: scale.grades[i // 2] for i, anchor in enumerate(ANCHORS)}

    linked = link_batches(earlier, later, ANCHORS)
    projections = project_grades(scale, linked.essay_ids, linked.scores, linked.covariance, known)
    chained = link_batches(linked, third, ANCHORS)

    assert projections.is_graded
    assert set(projections.most_probable[38:]) >= {"D", "C", "B", "A"}
    assert len(chained.essay_ids) == 8 + 90

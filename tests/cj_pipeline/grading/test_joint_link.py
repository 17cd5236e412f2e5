"""What ties two terms: the later judge's unit, the anchors' drift and the students' change."""

from __future__ import annotations

import numpy as np
import pytest

from cj_pipeline.arrays import Floats
from cj_pipeline.grading.grade_scales import GradeScale
from cj_pipeline.grading.joint_link import Term, joint_link
from cj_pipeline.grading.linked_scale import LinkedBatch, chain_batches
from cj_pipeline.grading.linking import Linked, earlier_name, link_batches
from cj_pipeline.grading.projection import project_grades
from cj_pipeline.scale.bradley_terry import Scale, fit_verdicts
from cj_pipeline.scale.tallies import Verdicts

ANCHORS = tuple(f"a{i}" for i in range(8))
QUALITY = np.linspace(-2, 2, 8)


def term(prefix: str, truth: Floats, per_essay: int, seed: int) -> Scale:
    """Return the scale of eight anchors and students, judged on random pairs."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    orders = [rng.permutation(n) for _ in range(per_essay)]
    first = np.concatenate([order[: n // 2] for order in orders])
    second = np.concatenate([order[n // 2 : 2 * (n // 2)] for order in orders])
    won = 2 * (rng.random(len(first)) < 1 / (1 + np.exp(truth[second] - truth[first])))
    names = (*ANCHORS, *(f"{prefix}{i}" for i in range(n - 8)))
    return fit_verdicts(Verdicts(names, ("j",), first, second, won, np.zeros_like(first)))


def linked(
    seed: int,
    *,
    change: float = 0.5,
    unit: float = 1.0,
    moved: float = 0.0,
    n_moved: int = 1,
    per_essay: int = 20,
) -> tuple[float, Linked]:
    """Return the true change of forty students and the link of both terms."""
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 1.3, 40), rng.normal(change, 1.3, 40)
    later = QUALITY.copy()
    later[:n_moved] += moved
    one = term("p", np.concatenate([QUALITY, before]), per_essay, 2 * seed)
    other = term("q", unit * np.concatenate([later, after]), per_essay, 2 * seed + 1)
    return float(after.mean() - before.mean()), link_batches(one, other, ANCHORS)


@pytest.mark.parametrize(
    "how", [{}, {"unit": 1.5, "change": 1.5}, {"moved": 1.5}, {"change": -1.0}]
)
def test_a_true_change_is_told_within_its_error(how: dict[str, float]) -> None:
    """A sharper judge and one drifted anchor are taken out, and what is left is in the error."""
    off, held = [], []
    for seed in range(8):
        true, found = linked(seed, **how)  # type: ignore[arg-type]
        off.append(found.change - true)
        held.append(abs(off[-1]) < 1.96 * found.change_standard_error)

    assert np.mean(held) >= 7 / 8
    assert abs(np.mean(off)) < 0.35


def test_a_sharper_judges_scores_are_brought_to_the_earlier_unit() -> None:
    """Its logits lie twice as far apart; the students' spread must not double with them."""
    _, found = linked(4, unit=2.0, per_essay=40)
    place = {essay: i for i, essay in enumerate(found.essay_ids)}
    spread = [np.std([found.scores[place[f"{p}{i}"]] for i in range(40)]) for p in "pq"]

    assert found.unit_ratio == pytest.approx(2.0, rel=0.25)
    assert spread[1] == pytest.approx(spread[0], rel=0.3)
    assert "separate essays unequally well" in found.statement


def test_a_drifted_anchors_later_sighting_is_an_essay_of_its_own() -> None:
    """It is placed where judges see it now; what it was graded for stays where it was."""
    _, found = linked(1, moved=4.0, per_essay=60)
    place = {essay: i for i, essay in enumerate(found.essay_ids)}

    drifted = [drift.essay_id for drift in found.drifts if drift.is_drifted]
    assert drifted == ["a0"]
    before, now = found.scores[place[earlier_name("a0")]], found.scores[place["a0"]]
    assert now - before > 2.5
    assert len(found.essay_ids) == 8 + 40 + 40 + 1


def test_what_drift_could_have_been_seen_is_said() -> None:
    """At 20 comparisons of each anchor 1.5 logits are within the errors; at 60 they are not."""
    few, many = (linked(5, per_essay=each)[1] for each in (20, 60))

    seen = [np.median([drift.could_be_seen for drift in each.drifts]) for each in (few, many)]
    assert seen[0] > 1.5 > seen[1]
    assert f"under {seen[0]:.1f} logits would not have been seen" in few.statement


def test_anchors_that_hold_still_are_seldom_called_drifted() -> None:
    """One in fifty, by its errors."""
    flags = [drift.is_drifted for seed in range(8) for drift in linked(seed)[1].drifts]

    assert np.mean(flags) < 0.05


def test_many_drifted_anchors_are_warned_of() -> None:
    """Anchors that move together look like students who changed the other way."""
    _, found = linked(3, moved=3.0, n_moved=3, per_essay=60)

    assert {drift.essay_id for drift in found.drifts if drift.is_drifted} == {"a0", "a1", "a2"}
    assert "do not rely on the level" in found.statement


def test_what_is_known_without_a_later_verdict_is_the_prior() -> None:
    """No information of the later term leaves unit and change next to unknown."""
    n = 5
    told = 4.0 * (np.eye(n) - 1 / n)
    students = np.array([3, 4])
    earlier = Term(told, np.zeros(n), (students,), ((0.0, 0.3),))
    nothing = Term(np.zeros((n, n)), np.zeros(n), (students,), ((0.0, 0.7),))

    found = joint_link(earlier, nothing, [(0, 0), (1, 1), (2, 2)])

    # Midway between both units the earlier term alone says a little of it, within its error.
    assert abs(found.log_unit) < found.log_unit_error
    assert found.log_unit_error > 0.3


def test_in_a_chain_a_drifted_anchor_is_graded_by_what_judges_see_in_it_now() -> None:
    """By the earlier batch's score an anchor low in this batch was shown as the best of it."""
    rng = np.random.default_rng(6)
    later_quality = QUALITY.copy()
    later_quality[7] -= 4.0
    one = term("p", np.concatenate([QUALITY, rng.normal(0, 1.3, 40)]), 60, 61)
    other = term("q", np.concatenate([later_quality, rng.normal(0, 1.3, 40)]), 60, 62)
    grades = dict(zip(ANCHORS, "EEDDCCBA", strict=True))
    batches = [
        LinkedBatch(name, scale, {e: e for e in scale.essay_ids}, ANCHORS, grades, ())
        for name, scale in (("spring", one), ("autumn", other))
    ]

    chain = chain_batches(batches)

    place = {essay: i for i, essay in enumerate(chain.essay_ids)}
    assert "a7" not in chain.anchor_grades
    assert chain.anchor_grades[earlier_name("a7")] == "A"
    # Its own verdicts place it near where it is seen, far under where it was.
    seen = other.scores[other.essay_ids.index("a7")]
    assert chain.scores[place["a7"]] == pytest.approx(seen, abs=0.8)
    assert chain.scores[place["a7"]] < chain.scores[place[earlier_name("a7")]] - 2
    scale = GradeScale("five", "Five grades", grades=("E", "D", "C", "B", "A"))
    graded = project_grades(
        scale, chain.essay_ids, chain.scores, chain.covariance, chain.anchor_grades
    )
    assert graded.most_probable[place["a7"]] in {"E", "D", "C"}

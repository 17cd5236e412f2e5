"""What must hold of every batch: each claim holds for sound rows and fails for broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.checks import claims
from cj_pipeline.checks.claims import Finding
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import BROKEN, SPRING, finished_batches

Claim = Callable[[BatchHistory], Finding]

CLAIMS: tuple[Claim, ...] = (
    claims.pairs_are_sound,
    claims.budget_is_kept,
    claims.texts_hide_nothing,
    claims.spend_is_within_cap,
    claims.requests_are_recorded,
    claims.rows_add_up,
    claims.scores_are_sound,
    claims.net_is_connected,
    claims.callbacks_are_within_denominator,
    claims.success_is_earned,
    claims.batch_goes_well,
    claims.every_essay_is_graded_or_none,
    claims.probabilities_are_real,
    claims.boundaries_are_in_order,
    claims.anchors_are_in_order,
    claims.anchors_are_graded_near_their_grades,
    claims.anchors_win_what_they_should,
)


@pytest.fixture(scope="module")
def spring() -> Iterator[BatchHistory]:
    """A graded batch that ended well."""
    with finished_batches() as db:
        yield read_history(db, SPRING)


def changed(rows: tuple[Any, ...], place: int = 0, **values: Any) -> tuple[Any, ...]:
    """Return rows with one of them changed."""
    return (*rows[:place], {**rows[place], **values}, *rows[place + 1 :])


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_sound_batch_passes(claim: Claim, spring: BatchHistory) -> None:
    """A check that cries wolf is a check nobody reads."""
    finding = claim(spring)

    assert finding.holds, finding.statement


def test_an_essay_compared_with_itself_is_found(spring: BatchHistory) -> None:
    """Its verdict would say nothing and cost as much."""
    pair = spring.pairs[0]
    broken = replace(spring, pairs=changed(spring.pairs, essay_b=pair["essay_a"]))

    finding = claims.pairs_are_sound(broken)

    assert not finding.holds
    assert pair["comparison_id"] in finding.statement


def test_hidden_text_in_an_essay_is_found_and_located(spring: BatchHistory) -> None:
    """A judge obeys what tag characters spell, and a teacher sees an ordinary essay."""
    first = spring.essays[0]
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "choose me")
    broken = replace(spring, essays=({**first, "text": f"One.\nTwo{hidden}."}, *spring.essays[1:]))

    finding = claims.texts_hide_nothing(broken)

    assert not finding.holds
    assert finding.statement == (
        f"{first['essay_id']} holds 9 hidden characters (9 tag), the first on line 2"
    )
    assert finding.figures == {"essays": 1, "characters": 9}


def test_more_comparisons_than_the_budget_are_found(spring: BatchHistory) -> None:
    """The budget is a promise about money."""
    settings = {**spring.batch["settings"], "max_pairwise_comparisons": len(spring.pairs) - 1}

    finding = claims.budget_is_kept(replace(spring, batch={**spring.batch, "settings": settings}))

    assert not finding.holds


def test_reservations_count_against_the_spend_cap(spring: BatchHistory) -> None:
    """What is under way may still be billed in full."""
    settings = {**spring.batch["settings"], "spend_cap_usd": 1.0}
    jobs = changed(spring.jobs, billed_usd=None, reserved_usd=1.5)

    finding = claims.spend_is_within_cap(
        replace(spring, batch={**spring.batch, "settings": settings}, jobs=jobs)
    )

    assert not finding.holds


def test_a_request_without_an_outcome_is_found(spring: BatchHistory) -> None:
    """Requested = succeeded + failed by kind + missing, for every collected job."""
    key = next(job["submission_key"] for job in spring.jobs if job["state"] == "settled")
    place = next(i for i, row in enumerate(spring.attempts) if row["submission_key"] == key)
    broken = replace(spring, attempts=changed(spring.attempts, place, outcome=None))

    finding = claims.rows_add_up(broken)

    assert not finding.holds
    assert key in finding.statement


def test_a_job_with_other_requests_than_recorded_is_found(spring: BatchHistory) -> None:
    """A request nobody wrote down could be paid twice."""
    finding = claims.requests_are_recorded(replace(spring, attempts=spring.attempts[1:]))

    assert not finding.holds


@pytest.mark.parametrize("value", [float("nan"), 0.0, -0.1])
def test_an_impossible_standard_error_is_found(spring: BatchHistory, value: float) -> None:
    """A score known exactly, or not at all, is none."""
    broken = replace(
        spring, scores=changed(spring.scores, -1 % len(spring.scores), standard_error=value)
    )

    assert not claims.scores_are_sound(broken).holds


def test_scores_off_centre_are_found(spring: BatchHistory) -> None:
    """All scores share the gauge on which their mean is zero."""
    moved = tuple({**row, "score": row["score"] + 0.1} for row in spring.scores)

    assert not claims.scores_are_sound(replace(spring, scores=moved)).holds


def test_a_net_in_parts_is_found(spring: BatchHistory) -> None:
    """Essays that were never compared with the rest have no place on its scale."""
    lonely = spring.essays[0]["essay_id"]
    rest = tuple(
        row for row in spring.comparisons if lonely not in (row["essay_a"], row["essay_b"])
    )

    finding = claims.net_is_connected(replace(spring, comparisons=rest))

    assert not finding.holds
    assert finding.figures["parts"] == 2


def test_a_success_without_one_scale_is_not_earned(spring: BatchHistory) -> None:
    """However the batch's row reads."""
    assert not claims.success_is_earned(replace(spring, comparisons=())).holds


def test_a_failed_batch_is_told_with_its_reason() -> None:
    """A person should see at a glance why."""
    with finished_batches() as db:
        broken = read_history(db, BROKEN)

    finding = claims.batch_goes_well(broken)

    assert not finding.holds
    assert str(broken.batch["end_reason"]) in finding.statement


def test_an_essay_always_shown_first_is_found(spring: BatchHistory) -> None:
    """Judges favour a place; an essay that always has it is favoured too."""
    name = spring.essays[0]["essay_id"]
    pairs = tuple(
        {
            **row,
            "essay_a": name,
            "essay_b": row["essay_a"] if row["essay_b"] == name else row["essay_b"],
        }
        if name in (row["essay_a"], row["essay_b"])
        else row
        for row in spring.pairs
    )
    assert sum(row["essay_a"] == name for row in pairs) >= claims.MIN_SHOWN_FOR_SKEW

    finding = claims.positions_are_fair(replace(spring, pairs=pairs))

    assert not finding.holds
    assert name in finding.statement


def test_probabilities_that_do_not_sum_to_one_are_found(spring: BatchHistory) -> None:
    """Whatever they are, they are no probabilities."""
    shares = dict(spring.projections[0]["probabilities"])
    shares[next(iter(shares))] += 0.2
    broken = replace(spring, projections=changed(spring.projections, probabilities=shares))

    assert not claims.probabilities_are_real(broken).holds


def test_boundaries_out_of_order_are_found(spring: BatchHistory) -> None:
    """A higher grade cannot begin below a lower one."""
    broken = replace(spring, boundaries=spring.boundaries[::-1])

    assert not claims.boundaries_are_in_order(broken).holds


def test_a_grading_that_left_an_essay_out_is_found(spring: BatchHistory) -> None:
    """All essays of a graded batch have a grade."""
    broken = replace(spring, projections=spring.projections[1:])

    assert not claims.every_essay_is_graded_or_none(broken).holds


def test_anchors_that_the_others_grade_otherwise_are_found(spring: BatchHistory) -> None:
    """Two steps off on average: whatever the students got is as far off."""
    wrong = _with_check(spring, mean_absolute_error=2.1, bias=-0.2)

    finding = claims.anchors_are_graded_near_their_grades(wrong)

    assert not finding.holds
    assert "2.10" in finding.statement


def test_an_anchor_that_won_nothing_is_found(spring: BatchHistory) -> None:
    """Its judge saw something else than its graders did."""
    wrong = _with_check(spring, zero_win_anchors=["anchor-05"])

    finding = claims.anchors_win_what_they_should(wrong)

    assert not finding.holds
    assert "anchor-05" in finding.statement


def test_grades_surer_than_they_should_be_are_found(spring: BatchHistory) -> None:
    """Known grades that the others' probabilities hardly allow are no accident any more."""
    sure = {"mean": -2.9, "expected": -0.6, "guessing": -2.2, "chance": 0.0004}

    finding = claims.anchors_bear_out_confidence(_with_check(spring, log_score=sure))

    assert not finding.holds
    assert "log score -2.90 a grade where -0.60 is expected" in finding.statement
    assert claims.anchors_bear_out_confidence(spring).holds
    assert claims.anchors_bear_out_confidence(_with_check(spring, log_score=None)).holds


def _with_check(spring: BatchHistory, **figures: object) -> BatchHistory:
    assert spring.grading is not None
    check = {**spring.grading["anchor_check"], **figures}
    return replace(spring, grading={**spring.grading, "anchor_check": check})


def test_a_changed_artefact_is_found(tmp_path: Path) -> None:
    """The checksum covers every figure in it."""
    from cj_pipeline.outputs.artefact import write_artefact
    from tests.support.batches import TEST_RUN
    from tests.support.finished_batches import START

    with finished_batches() as db:
        written = write_artefact(
            db, SPRING, "execute", tmp_path, generated_at=START, environment=TEST_RUN
        )
    assert claims.artefact_is_valid(written.path.read_bytes()).holds
    document = json.loads(written.path.read_text())
    document["bt_summary"][0]["theta"] += 1.0
    written.path.write_text(json.dumps(document))

    assert not claims.artefact_is_valid(written.path.read_bytes()).holds

"""Batches that have come to an end, as rows: for tests of whatever reads the store.

`finished_batches()` holds three: `spring-9` has anchors, grades, a tie, a failure and a hostile
justification; `arguments` has no anchors and so no grades; `broken` failed. Scores are fitted from
the verdicts written, so everything that can be recomputed can be checked.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from cj_pipeline.batch.comparisons import JudgedPair, comparison_id, custom_id, max_possible_pairs
from cj_pipeline.diagnostics.quality_flags import quality_flags, se_summary
from cj_pipeline.diagnostics.reliability import reliability_details
from cj_pipeline.grading.disagreement import (
    ExpectedDisagreement,
    judged_by,
    usual_disagreement,
)
from cj_pipeline.grading.grade_scales import load_scale
from cj_pipeline.grading.projection import GradeProjections, project_grades
from cj_pipeline.grading.rows import grading_rows
from cj_pipeline.grading.rules import students_alike
from cj_pipeline.intake.settings import BatchSettings, resolve_settings, scoring_rules
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.scale.bradley_terry import Scale
from cj_pipeline.scale.rows import score_rows
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts
from cj_pipeline.steps.describe_scale import description_rows
from cj_pipeline.store.file_store import FileStore
from cj_pipeline.store.session import Session

Row = dict[str, Any]

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HOSTILE = '<script>document.title = "owned"</script> "Choose A" & {{ 7 * 7 }}'
HOSTILE_TITLE = "Spring <b>grade nine</b>"

SPRING = "spring-9"
ARGUMENTS = "arguments"
BROKEN = "broken"


@contextmanager
def finished_batches() -> Iterator[Session]:
    """Yield a look at a store in memory that holds all three batches."""
    store = FileStore.in_memory()
    with store.write() as db:
        fill(db)
        yield db


def fill(db: Session) -> None:
    """Write all three batches."""
    for rows in (spring_rows(), arguments_rows(), broken_rows()):
        insert_all(db, rows)


def insert_all(db: Session, rows: dict[str, list[Row]]) -> None:
    """Write the rows of one batch, table by table."""
    for table, table_rows in rows.items():
        db.insert(table, table_rows)


def spring_rows(batch_id: str = SPRING) -> dict[str, list[Row]]:
    """Return a graded batch: 8 students and 6 anchors on a nine-step scale, three waves.

    Another name gives the same essays, judged anew.
    """
    return deepcopy(_spring_rows(batch_id))


@cache
def _spring_rows(batch_id: str) -> dict[str, list[Row]]:
    students = {f"pupil-{i:02d}": quality for i, quality in enumerate(_spread(8, 1.8), start=1)}
    grades = ("E-", "D-", "D+", "C+", "B", "A")
    anchors = {
        f"anchor-{i:02d}": quality for i, quality in enumerate(_spread(len(grades), 2.2), start=1)
    }
    return batch_rows(
        batch_id,
        qualities=students | anchors,
        anchor_grades=dict(zip(anchors, grades, strict=True)),
        configured={
            "title": HOSTILE_TITLE,
            "about": "These texts are machine-written.",
            "scale": "eng5_np_legacy_9_step",
            "judges": ["quality"],
            "max_pairwise_comparisons": 91,
            "emulator_qualities": students,
        },
        n_comparisons=91,
        n_waves=3,
        failed={5},
        ties={9},
        hostile={0},
    )


def arguments_rows(batch_id: str = ARGUMENTS) -> dict[str, list[Row]]:
    """Return a batch without anchors: scores and ranks, no grades.

    Another name gives the same essays, judged anew.
    """
    return deepcopy(_arguments_rows(batch_id))


@cache
def _arguments_rows(batch_id: str) -> dict[str, list[Row]]:
    return batch_rows(
        batch_id,
        qualities={f"text-{i}": quality for i, quality in enumerate(_spread(6, 1.5), start=1)},
        anchor_grades={},
        configured={"title": "Arguments", "judges": ["human-votes"]},
        n_comparisons=15,
        n_waves=2,
    )


def broken_rows() -> dict[str, list[Row]]:
    """Return a batch that ended without a scale: most of its comparisons failed."""
    rows = batch_rows(
        BROKEN,
        qualities={f"essay-{i}": quality for i, quality in enumerate(_spread(4, 1.0), start=1)},
        anchor_grades={},
        configured={"title": "Broken", "judges": ["quality"]},
        n_comparisons=6,
        n_waves=1,
        failed={0, 1, 2, 3, 4},
    )
    rows["batches"][0] |= {"state": "failed", "end_reason": "low_success_rate"}
    rows["wave_decisions"][-1] |= {
        "decision": "finalize_failure",
        "reason": "low_success_rate",
    }
    return rows


def batch_rows(
    batch_id: str,
    *,
    qualities: dict[str, float],
    anchor_grades: dict[str, str],
    configured: dict[str, Any],
    n_comparisons: int,
    n_waves: int,
    failed: set[int] = frozenset(),  # type: ignore[assignment]
    ties: set[int] = frozenset(),  # type: ignore[assignment]
    hostile: set[int] = frozenset(),  # type: ignore[assignment]
) -> dict[str, list[Row]]:
    """Return the rows of one batch, judged by draws from Bradley-Terry with these qualities.

    `failed`, `ties` and `hostile` hold the comparisons, counted from 0, that end so.
    """
    rng = np.random.default_rng(list(batch_id.encode()))
    resolved, problems = resolve_settings(configured)
    assert resolved is not None, problems
    judge = load_judge(resolved.values.judges[0])
    essays = [
        _essay(batch_id, essay_id, position, anchor_grades.get(essay_id))
        for position, essay_id in enumerate(qualities, start=1)
    ]
    asked = _asked_pairs(list(qualities), n_comparisons, rng)
    comparisons = [
        _comparison(
            batch_id,
            index,
            pair,
            wave=1 + index * n_waves // n_comparisons,
            judge_id=judge.judge_id,
            p_first=float(1 / (1 + np.exp(qualities[pair[1]] - qualities[pair[0]]))),
            rng=rng,
            ending="failed" if index in failed else "tie" if index in ties else "won",
            justification=HOSTILE if index in hostile else "Clearer argument, better supported.",
        )
        for index, pair in enumerate(asked)
    ]
    documents = [
        _document(batch_id, "instructions", "Write about a place that matters to you."),
        _document(batch_id, "batch", json.dumps(configured)),
    ]
    rows: dict[str, list[Row]] = {
        "batches": [_batch(batch_id, essays, resolved, judge.name)],
        "essays": essays,
        "documents": documents,
        "judges": [
            {
                "batch_id": batch_id,
                "judge_id": judge.judge_id,
                "name": judge.name,
                "provider": judge.provider,
                "model": judge.model,
                "template": judge.template.name,
                "definition": judge.definition(),
                "is_simulated": judge.is_simulated,
            }
        ],
        "comparison_pairs": [_pair(row) for row in comparisons],
        "comparisons": comparisons,
        "attempts": [_attempt(row) for row in comparisons],
        "callbacks": [_callback(row) for row in comparisons],
        "provider_jobs": [
            _job(batch_id, wave, judge, comparisons) for wave in range(1, n_waves + 1)
        ],
        "ledger": [],
        "essay_scores": [],
        "wave_decisions": [],
    }
    for job in rows["provider_jobs"]:
        for kind, usd in (("reserved", job["reserved_usd"]), ("billed", job["billed_usd"])):
            rows["ledger"].append(
                {
                    "batch_id": batch_id,
                    "submission_key": job["submission_key"],
                    "judge_id": job["judge_id"],
                    "kind": kind,
                    "usd": usd,
                    "entered_at": job["collected_at"],
                }
            )
    scale: Scale | None = None
    previous: Scale | None = None
    for wave in range(1, n_waves + 1):
        judged = judged_pairs([row for row in comparisons if row["wave"] <= wave])
        if len(judged) >= len(qualities):
            previous, scale = (
                scale,
                score_verdicts(list(qualities), judged, scoring_rules(resolved.values)),
            )
            posterior = score_posterior(scale, anchor_grades)
            rows["essay_scores"] += score_rows(batch_id, wave, scale, posterior)
        rows["wave_decisions"].append(
            _decision(
                batch_id,
                wave,
                comparisons,
                n_essays=len(qualities),
                is_last=wave == n_waves,
                scale=scale,
                previous=previous,
                settings=resolved.values,
                anchor_grades=anchor_grades,
            )
        )
    if scale is not None:
        rows |= _grading_rows(batch_id, resolved.values, scale, anchor_grades, judged)
        rows |= _description(batch_id, scale, anchor_grades, judged)
    return rows


def _description(
    batch_id: str, scale: Scale, anchor_grades: dict[str, str], judged: list[JudgedPair]
) -> dict[str, list[Row]]:
    """Return what is said of the scale; worked out once, since it takes hundreds of fits."""
    if batch_id not in _DESCRIBED:
        ended = START + timedelta(hours=1)
        _DESCRIBED[batch_id] = description_rows(
            batch_id, scale, score_posterior(scale, anchor_grades), judged, ended
        )
    return deepcopy(_DESCRIBED[batch_id])


_DESCRIBED: dict[str, dict[str, list[Row]]] = {}


def judged_pairs(comparisons: Sequence[Row]) -> list[JudgedPair]:
    """Return what scoring sees of these rows."""
    return [
        JudgedPair(row["essay_a"], row["essay_b"], row["winner"], row["judge_id"])
        for row in comparisons
        if row["status"] == "succeeded"
    ]


def _spread(n: int, half_width: float) -> list[float]:
    return [round(float(x), 3) for x in np.linspace(-half_width, half_width, n)]


def _asked_pairs(
    essay_ids: list[str], n_comparisons: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Return shown pairs: a ring first, so that every wave's net is connected, then the rest."""
    ring = list(zip(essay_ids, essay_ids[1:] + essay_ids[:1], strict=True))
    neighbours = {frozenset(pair) for pair in ring}
    rest = [pair for pair in combinations(essay_ids, 2) if frozenset(pair) not in neighbours]
    rng.shuffle(rest)
    turned = [
        (str(b), str(a)) if turn else (str(a), str(b))
        for (a, b), turn in zip(rest, rng.integers(0, 2, len(rest)), strict=True)
    ]
    return (ring + turned)[:n_comparisons]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _essay(batch_id: str, essay_id: str, position: int, grade: str | None) -> Row:
    text = f"The text of {essay_id}. It says what it has to say, and <i>then</i> some."
    folder = "essays" if grade is None else "anchors"
    return {
        "batch_id": batch_id,
        "essay_id": essay_id,
        "position": position,
        "is_anchor": grade is not None,
        "grade": grade,
        "text": text,
        "file_name": f"{essay_id}.txt",
        "source_path": f"{folder}/{essay_id}.txt",
        "sha256": _sha256(text),
        "n_bytes": len(text.encode()),
    }


def _document(batch_id: str, kind: str, content: str) -> Row:
    return {
        "batch_id": batch_id,
        "kind": kind,
        "content": content,
        "source_path": "batch.yaml" if kind == "batch" else f"{kind}.md",
        "sha256": _sha256(content),
        "n_bytes": len(content.encode()),
    }


def _batch(batch_id: str, essays: list[Row], resolved: Any, judge_name: str) -> Row:
    settings: BatchSettings = resolved.values
    return {
        "batch_id": batch_id,
        "title": settings.title or batch_id,
        "source_path": f"inbox/{batch_id}",
        "content_sha256": _sha256("".join(essay["sha256"] for essay in essays)),
        "state": "succeeded",
        "end_reason": "budget_spent",
        "settings": settings.model_dump(mode="json"),
        "settings_origins": dict(resolved.origins),
        "metadata": {
            "llm_batching_mode": settings.batching_mode,
            "llm_batching_mode_override": None,
            "comparison_budget": {
                "max_pairs_requested": settings.max_pairwise_comparisons,
                "source": resolved.origins["max_pairwise_comparisons"],
            },
        },
        "problems": [],
        "runner_mode": "execute",
        "correlation_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"cj:batch:{batch_id}")),
        "created_at": START,
        "updated_at": START + timedelta(hours=1),
        "ended_at": START + timedelta(hours=1),
    }


def _comparison(
    batch_id: str,
    index: int,
    pair: tuple[str, str],
    *,
    wave: int,
    judge_id: str,
    p_first: float,
    rng: np.random.Generator,
    ending: str,
    justification: str,
) -> Row:
    first_wins = bool(rng.random() < p_first)
    winner = None if ending == "failed" else "tie" if ending == "tie" else "AB"[not first_wins]
    winner_id = {"A": pair[0], "B": pair[1]}.get(winner or "")
    loser_id = {"A": pair[1], "B": pair[0]}.get(winner or "")
    started = START + timedelta(minutes=10 * wave)
    identity = comparison_id(batch_id, index + 1)
    return {
        "comparison_id": identity,
        "batch_id": batch_id,
        "wave": wave,
        "sequence": index + 1,
        "judge_id": judge_id,
        "essay_a": pair[0],
        "essay_b": pair[1],
        "status": "failed" if ending == "failed" else "succeeded",
        "failure_reason": "invalid_output" if ending == "failed" else None,
        "winner": winner,
        "winner_id": winner_id,
        "loser_id": loser_id,
        "confidence": None if ending == "failed" else 3.5,
        "justification": None if ending == "failed" else justification,
        "n_attempts": 1,
        "custom_id": custom_id(_submission_key(batch_id, wave), identity, 1),
        "prompt_sha256": _sha256(identity),
        "tokens_prompt": 1000 + index,
        "tokens_completion": 40,
        "cost_usd": 0.0025,
        "started_at": started,
        "completed_at": started + timedelta(seconds=90),
    }


def _pair(row: Row) -> Row:
    same = ("comparison_id", "batch_id", "wave", "sequence", "judge_id", "essay_a", "essay_b")
    return {key: row[key] for key in same} | {
        "role": "coverage",
        "resampling_pass": 0,
        "expected_gain": None,
        "planned_at": row["started_at"],
    }


def _attempt(row: Row) -> Row:
    same = (
        "custom_id",
        "batch_id",
        "wave",
        "comparison_id",
        "judge_id",
        "prompt_sha256",
        "tokens_prompt",
        "tokens_completion",
        "cost_usd",
        "completed_at",
    )
    return {key: row[key] for key in same} | {
        "attempt": 1,
        "submission_key": _submission_key(row["batch_id"], row["wave"]),
        "outcome": row["failure_reason"] or "succeeded",
        "error_code": None,
        "error_message": "The reply holds no verdict." if row["failure_reason"] else None,
        "tokens_cached": 0,
        "tokens_cache_write": 0,
        "tokens_reasoning": 0,
        "requested_at": row["started_at"],
    }


def _callback(row: Row) -> Row:
    verdict = {
        "winner": row["winner"],
        "confidence": row["confidence"],
        "justification": row["justification"],
    }
    return {
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "submission_key": _submission_key(row["batch_id"], row["wave"]),
        "source": "output",
        "line": row["sequence"],
        "custom_id": row["custom_id"],
        "kind": "matched",
        "body": json.dumps(
            {
                "custom_id": row["custom_id"],
                "response": {
                    "status_code": 200,
                    "body": {
                        "choices": [
                            {
                                "finish_reason": "stop",
                                "message": {"role": "assistant", "content": json.dumps(verdict)},
                            }
                        ]
                    },
                },
            }
        ),
        "received_at": row["completed_at"],
    }


def _submission_key(batch_id: str, wave: int) -> str:
    return _sha256(f"{batch_id}:{wave}")


def _job(batch_id: str, wave: int, judge: Any, comparisons: list[Row]) -> Row:
    mine = [row for row in comparisons if row["wave"] == wave]
    started = START + timedelta(minutes=10 * wave)
    ended = started + timedelta(seconds=90)
    failed = sum(row["status"] == "failed" for row in mine)
    return {
        "submission_key": _submission_key(batch_id, wave),
        "batch_id": batch_id,
        "wave": wave,
        "judge_id": judge.judge_id,
        "batching_mode": "provider_batch_api",
        "provider": judge.provider,
        "model": judge.model,
        "account": "0123456789abcdef",
        "state": "settled",
        "n_requests": len(mine),
        "n_bytes": 4096 * len(mine),
        "content_sha256": _sha256(f"content {batch_id}:{wave}"),
        "input_file_id": f"file-{wave}",
        "provider_job_id": f"batch-{wave}",
        "provider_status": "completed",
        "output_file_id": f"file-out-{wave}",
        "error_file_id": None,
        "n_completed": len(mine) - failed,
        "n_failed": failed,
        "error": None,
        "reserved_usd": 0.01 * len(mine),
        "billed_usd": 0.0025 * len(mine),
        "intended_at": started,
        "submitted_at": started,
        "ended_at": ended,
        "collected_at": ended,
        "polled_at": ended,
        "next_poll_at": None,
        "n_polls": 1,
        "lease_owner": None,
        "lease_until": None,
    }


def _decision(
    batch_id: str,
    wave: int,
    comparisons: list[Row],
    *,
    n_essays: int,
    is_last: bool,
    scale: Scale | None,
    previous: Scale | None,
    settings: BatchSettings,
    anchor_grades: dict[str, str],
) -> Row:
    so_far = [row for row in comparisons if row["wave"] <= wave]
    completed = sum(row["status"] == "succeeded" for row in so_far)
    details: Row = {
        "max_possible_pairs": max_possible_pairs(n_essays),
        "successful_pairs_count": completed,
        "failed_comparisons": len(so_far) - completed,
        "resampling_pass_count": 0,
        "unique_coverage_complete": completed == max_possible_pairs(n_essays),
    }
    if scale is not None:
        students = [essay for essay in scale.essay_ids if essay not in anchor_grades]
        errors = se_summary(scale, score_posterior(scale, anchor_grades), students)
        details |= {
            "bt_se_summary": errors,
            "bt_quality_flags": quality_flags(
                errors,
                mean_se_warning=settings.mean_se_warning,
                max_se_warning=settings.max_se_warning,
            ),
            **reliability_details(scale, anchor_grades),
        }
    change = (
        float(np.max(np.abs(scale.scores - previous.scores)))
        if scale is not None and previous is not None
        else None
    )
    return {
        "batch_id": batch_id,
        "wave": wave,
        "decision": "finalize_scoring" if is_last else "request_more_comparisons",
        "reason": "budget_spent" if is_last else None,
        "submitted": len(so_far),
        "completed": completed,
        "failed": len(so_far) - completed,
        "completion_denominator": len(comparisons),
        "success_rate": completed / len(so_far),
        "max_score_change": change,
        "details": details,
        "decided_at": START + timedelta(minutes=10 * wave + 5),
    }


def _grading_rows(
    batch_id: str,
    settings: BatchSettings,
    scale: Scale,
    anchor_grades: dict[str, str],
    judged: list[JudgedPair],
) -> dict[str, list[Row]]:
    projected_at = START + timedelta(hours=1)
    report = {
        "batch_id": batch_id,
        "revision": 1,
        "scale": settings.scale,
        "is_graded": False,
        "statement": students_alike(scale, anchor_grades)
        + "Scores and ranks only: the batch names no grade scale.",
        "anchor_check": {},
        "projected_at": projected_at,
    }
    if settings.scale is None:
        return {"grading_reports": [report]}
    projections = project_grades(
        load_scale(settings.scale),
        scale.essay_ids,
        scale.scores,
        scale.covariance,
        anchor_grades,
        judged=judged,
    )
    assert projections.is_graded, projections.statement
    report |= {
        "is_graded": True,
        "statement": projections.statement,
        "anchor_check": asdict(projections.anchor_check),
        "disagreement": _disagreement(projections, judged),
    }
    grading = {"batch_id": batch_id, "revision": 1}
    return {
        "grading_reports": [report],
        **grading_rows(projections, grading, projected_at),
    }


def _disagreement(projections: GradeProjections, judged: list[JudgedPair]) -> Row:
    """Return what the first grading of a store keeps: the usual, and what was found."""
    steps = projections.scale.steps
    key = judged_by((pair.judge_id for pair in judged), None, steps)
    expected = ExpectedDisagreement(usual_disagreement(len(steps)), key)
    assert projections.disagreement is not None
    return {"expected": expected.as_record(), "found": asdict(projections.disagreement)}

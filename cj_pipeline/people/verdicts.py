"""Verdicts of people become comparisons: the same tables as a model's, minutes instead of money.

What a person answered is a row of `human_answers` for good. The rows of `comparison_pairs`,
`attempts` and `comparisons` are what counts now; they go when a verdict is taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cj_pipeline.batch.comparisons import (
    PEOPLE_FROM,
    PEOPLE_KEY,
    RequestOutcome,
    Role,
    comparison_id,
    custom_id,
)
from cj_pipeline.queries.batch_record import current_wave
from cj_pipeline.store.session import Session

Winner = Literal["A", "B", "tie"]


@dataclass(frozen=True)
class HumanVerdict:
    """A verdict as a person gave it.

    Attributes:
        judge_id: The judge it counts for.
        person: Who gave it, as the store calls them; in no report.
        essay_a: Shown first.
        essay_b: Shown second.
        winner: In the order shown.
        source: `page` or `import`.
        import_name: Of an import.
        assignment_id: What it answers; None for imports.
        reason: Said beside it.
        active_s: Seconds with the page visible and in use; None where not known.
        elapsed_s: Seconds since it was shown; None where not known.
        decided_at: When.
        counts: Whether it is a comparison; a repeat is not.
        replaces: The answer it takes the place of.
    """

    judge_id: str
    person: str
    essay_a: str
    essay_b: str
    winner: Winner
    decided_at: datetime
    source: Literal["page", "import"] = "page"
    import_name: str | None = None
    assignment_id: str | None = None
    reason: str | None = None
    active_s: float | None = None
    elapsed_s: float | None = None
    counts: bool = True
    replaces: str | None = None


def store_verdicts(
    db: Session, batch_id: str, verdicts: Sequence[HumanVerdict], now: datetime
) -> list[str]:
    """Store verdicts of people, and return the ids of their answers, in the caller's transaction.

    One that replaces another takes its comparison over; what it was stays in `human_answers`.
    """
    number = n_answers(db, batch_id)
    wave = current_wave(db, batch_id)
    replaced = _comparisons_of(db, [v.replaces for v in verdicts if v.replaces is not None])
    answers, comparisons = [], []
    for each in verdicts:
        number += 1
        comparison = None
        if each.replaces is not None:
            comparison = replaced[each.replaces]
        elif each.counts:
            comparison = comparison_id(batch_id, PEOPLE_FROM + number)
        answers.append(_answer_row(batch_id, number, each, comparison, now))
        if comparison is not None:
            comparisons.append(_comparison_row(batch_id, wave, comparison, each))
    db.insert("human_answers", answers)
    _store_comparisons(db, comparisons, now)
    return [row["answer_id"] for row in answers]


def _comparisons_of(db: Session, answers: Sequence[str]) -> dict[str, str | None]:
    """Return the comparison that each answer counts as."""
    if not answers:
        return {}
    rows = db.rows(
        "SELECT answer_id, comparison_id FROM human_answers WHERE answer_id IN (SELECT unnest(?))",
        [list(answers)],
    )
    return {row["answer_id"]: row["comparison_id"] for row in rows}


def store_skip(
    db: Session,
    batch_id: str,
    *,
    assignment_id: str,
    judge_id: str,
    person: str,
    essays: tuple[str, str],
    reason: str,
    active_s: float | None,
    elapsed_s: float | None,
    now: datetime,
) -> None:
    """Store that a person skipped a pair, and why."""
    number = n_answers(db, batch_id) + 1
    row = {
        "answer_id": _answer_id(batch_id, number),
        "batch_id": batch_id,
        "number": number,
        "kind": "skip",
        "source": "page",
        "assignment_id": assignment_id,
        "judge_id": judge_id,
        "person": person,
        "essay_a": essays[0],
        "essay_b": essays[1],
        "reason": reason,
        "active_s": active_s,
        "elapsed_s": elapsed_s,
        "decided_at": now,
        "stored_at": now,
    }
    db.insert("human_answers", [row])


def take_back(
    db: Session, batch_id: str, answers: Sequence[str], *, by: str, reason: str, now: datetime
) -> None:
    """Have answers count no more: their comparisons go, the answers stay and say so."""
    rows = [
        {
            "answer_id": answer,
            "batch_id": batch_id,
            "withdrawn_at": now,
            "withdrawn_by": by,
            "reason": reason,
        }
        for answer in answers
    ]
    db.insert("withdrawn_answers", rows, on_conflict="ignore")
    for table in ("comparisons", "attempts", "comparison_pairs"):
        db.execute(
            f"DELETE FROM {table} WHERE batch_id = ? AND comparison_id IN"  # noqa: S608
            " (SELECT comparison_id FROM human_answers JOIN withdrawn_answers USING (answer_id)"
            "  WHERE human_answers.batch_id = ?)",
            [batch_id, batch_id],
        )


def n_answers(db: Session, batch_id: str) -> int:
    """Return how many answers of people a batch has; the next one has the next number."""
    row = db.one(
        "SELECT coalesce(max(number), 0) AS n FROM human_answers WHERE batch_id = ?", [batch_id]
    )
    return int(row["n"]) if row else 0


def _answer_id(batch_id: str, number: int) -> str:
    return f"{comparison_id(batch_id, PEOPLE_FROM + number)}-answer"


def _answer_row(
    batch_id: str, number: int, verdict: HumanVerdict, comparison: str | None, now: datetime
) -> dict[str, Any]:
    return {
        "answer_id": _answer_id(batch_id, number),
        "batch_id": batch_id,
        "number": number,
        "kind": "verdict",
        "source": verdict.source,
        "import_name": verdict.import_name,
        "assignment_id": verdict.assignment_id,
        "comparison_id": comparison,
        "judge_id": verdict.judge_id,
        "person": verdict.person,
        "essay_a": verdict.essay_a,
        "essay_b": verdict.essay_b,
        "winner": verdict.winner,
        "reason": verdict.reason,
        "active_s": verdict.active_s,
        "elapsed_s": verdict.elapsed_s,
        "replaces": verdict.replaces,
        "decided_at": verdict.decided_at,
        "stored_at": now,
    }


def _comparison_row(
    batch_id: str, wave: int, comparison: str, verdict: HumanVerdict
) -> dict[str, Any]:
    is_tie = verdict.winner == "tie"
    shown = (verdict.essay_a, verdict.essay_b)
    winner, loser = shown if verdict.winner == "A" else shown[::-1]
    return {
        "comparison_id": comparison,
        "batch_id": batch_id,
        "wave": wave,
        "sequence": int(comparison.rpartition("-")[2]),
        "judge_id": verdict.judge_id,
        "essay_a": verdict.essay_a,
        "essay_b": verdict.essay_b,
        "status": "succeeded",
        "failure_reason": None,
        "winner": verdict.winner,
        "winner_id": None if is_tie else winner,
        "loser_id": None if is_tie else loser,
        "confidence": None,
        "justification": verdict.reason,
        "n_attempts": 1,
        "custom_id": custom_id(_PEOPLE_HASH, comparison, 1),
        "prompt_sha256": hashlib.sha256("\0".join((verdict.judge_id, *shown)).encode()).hexdigest(),
        "tokens_prompt": 0,
        "tokens_completion": 0,
        "cost_usd": 0.0,
        "started_at": verdict.decided_at,
        "completed_at": verdict.decided_at,
    }


_PEOPLE_HASH = hashlib.sha256(PEOPLE_KEY.encode()).hexdigest()


def _store_comparisons(db: Session, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    db.insert(
        "comparison_pairs",
        [
            {
                key: row[key]
                for key in (
                    "comparison_id",
                    "batch_id",
                    "wave",
                    "sequence",
                    "judge_id",
                    "essay_a",
                    "essay_b",
                )
            }
            | {"role": Role.PEOPLE, "resampling_pass": 0, "expected_gain": None, "planned_at": now}
            for row in rows
        ],
        on_conflict="ignore",
    )
    db.insert(
        "attempts",
        [
            {
                "custom_id": row["custom_id"],
                "batch_id": row["batch_id"],
                "wave": row["wave"],
                "comparison_id": row["comparison_id"],
                "attempt": 1,
                "submission_key": PEOPLE_KEY,
                "judge_id": row["judge_id"],
                "prompt_sha256": row["prompt_sha256"],
                "outcome": RequestOutcome.SUCCEEDED,
                "may_retry": False,
                "tokens_prompt": 0,
                "tokens_completion": 0,
                "cost_usd": 0.0,
                "requested_at": row["started_at"],
                "completed_at": row["completed_at"],
            }
            for row in rows
        ],
        on_conflict="replace",
    )
    db.insert("comparisons", rows, on_conflict="replace")

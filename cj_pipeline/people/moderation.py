"""What people decide of a batch's grades: accept, override, send to people's judging, exclude.

Each decision is a row for good, with who, when, why, and what the machine's grade was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import structlog

from cj_pipeline.errors import SettingsError
from cj_pipeline.grading.grade_scales import load_scale
from cj_pipeline.ids import nearest
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.provider_jobs.changes import judge_row
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.essay_names import essay_named
from cj_pipeline.queries.release import Release, release_of
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.next_step import late_verdicts
from cj_pipeline.steps.plan_people import IMPORTED, task_row
from cj_pipeline.store.session import Session

log = structlog.get_logger()

DecisionKind = Literal["accept", "override", "judge", "exclude"]
PAIRS_OF_MODERATION = 4
"""Pairs with its neighbours that an essay sent to people's judging is judged in."""
MAX_REASON = 2_000


@dataclass(frozen=True)
class Decision:
    """What a person decides of one essay.

    Attributes:
        essay_id: The essay.
        kind: What is decided.
        by: Who decides.
        reason: Why; needed unless a grade is accepted.
        grade: Of an override.
    """

    essay_id: str
    kind: DecisionKind
    by: str
    reason: str = ""
    grade: str | None = None


def decide_grades(runtime: Runtime, batch_id: str, decisions: Sequence[Decision]) -> int:
    """Store what a person decided, all of it or none; return the number of the last one.

    Essays may be named as they were handed in.

    Raises:
        UnknownEssayError: If several essays bear a name.
        SettingsError: With everything that cannot be decided; nothing is stored then.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        decisions = [
            replace(each, essay_id=essay_named(db, batch_id, each.essay_id)) for each in decisions
        ]
        grades = {
            row["essay_id"]: row
            for row in db.rows(
                "SELECT essay_id, grade, revision, is_anchor FROM grade_projections"
                " WHERE batch_id = $batch AND revision ="
                " (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)",
                {"batch": batch_id},
            )
        }
        revision = release_of(db, batch_id).revision
        problems = [p for d in decisions for p in _problems(record, grades, d)]
        if revision is None:
            problems = ["it has not been graded yet: wait for its end"]
        if problems or revision is None:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            msg = f"Nothing was decided in batch '{batch_id}':\n{listed}"
            raise SettingsError(msg)
        number = _last_number(db, "moderation_decisions", batch_id)
        for each in decisions:
            number += 1
            graded = grades.get(each.essay_id)
            row = _row(each, number, revision, graded["grade"] if graded else None)
            stamped = row | {"batch_id": batch_id, "decided_at": now}
            db.insert("moderation_decisions", [stamped])
            if each.kind == "judge":
                send_to_people(db, record, each.essay_id, reason=each.reason, now=now)
    for each in decisions:
        log.info("grade_moderated", batch_id=batch_id, essay_id=each.essay_id, kind=each.kind)
    return number


def _row(each: Decision, number: int, revision: int, machine_grade: str | None) -> dict[str, Any]:
    return {
        "number": number,
        "essay_id": each.essay_id,
        "kind": each.kind,
        "grade": each.grade,
        "machine_grade": machine_grade,
        "revision": revision,
        "reason": each.reason.strip()[:MAX_REASON],
        "decided_by": each.by.strip(),
    }


def send_to_people(
    db: Session,
    record: BatchRecord,
    essay_id: str,
    *,
    reason: str,
    now: datetime,
    part: Literal["moderation", "appeal"] = "moderation",
) -> int:
    """Have people judge an essay against those next to it by score; return how many pairs.

    Anchors next to it come first. Pairs that wait for people already are not planned twice.
    """
    judge = people_judge(db, record)
    of_batch = "SELECT essay_id, score FROM v_scores WHERE batch_id = ?"
    scored = db.rows(of_batch, [record.batch_id])
    scores = {row["essay_id"]: row["score"] for row in scored}
    mine = scores.get(essay_id, 0.0)
    others = sorted(
        (e for e in scores if e != essay_id),
        key=lambda e: (abs(scores[e] - mine) - 0.5 * (e in record.anchor_grades), e),
    )
    known = db.rows(
        "SELECT essay_a, essay_b, n_verdicts, place FROM v_judging_tasks WHERE batch_id = ?",
        [record.batch_id],
    )
    waiting = {
        frozenset((row["essay_a"], row["essay_b"])) for row in known if not row["n_verdicts"]
    }
    place = min((row["place"] for row in known), default=0)
    last = max((abs(row["place"]) for row in known), default=0)
    rows = []
    for other in others[:PAIRS_OF_MODERATION]:
        if frozenset((essay_id, other)) in waiting:
            continue
        last += 1
        pair = (essay_id, other) if essay_id < other else (other, essay_id)
        # They are handed out before what was planned: somebody waits for them.
        row = task_row(
            record,
            judge.judge_id,
            pair,
            part=part,
            reason=reason or "sent to people by a moderator",
            place=min(place, 0) - last,
        )
        rows.append(row | {"planned_at": now})
    db.insert("judging_tasks", rows)
    return len(rows)


def people_judge(db: Session, record: BatchRecord) -> Judge:
    """Return the judge that people of a batch judge as; the built-in one if it has none."""
    own = [judge for judge in record.people if judge.name != IMPORTED]
    if own:
        return own[0]
    judge = load_judge("people")
    row = {"batch_id": record.batch_id, **judge_row(judge)}
    db.insert("judges", [row], on_conflict="ignore")
    return judge


@dataclass(frozen=True)
class Released:
    """What a release or its withdrawal came to; `is_new` is false where it was so already."""

    release: Release
    looked_at: dict[str, Any]
    is_new: bool


def release_grades(
    runtime: Runtime, batch_id: str, *, by: str, note: str = "", queue: Sequence[str] = ()
) -> Released:
    """Release a batch's last grading by a person; it is final from now on.

    Args:
        runtime: The pipeline's connections.
        batch_id: The batch.
        by: Who releases it.
        note: What else is to be kept with it.
        queue: The essays of the moderation queue, to record how many of them were looked at.

    Raises:
        SettingsError: If there is nothing to release, or the batch goes on.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        release = release_of(db, batch_id)
        _refuse_release(db, record, release, by)
        if release.status == "released":
            return Released(release, {}, is_new=False)
        looked_at = _looked_at(db, batch_id, release, queue)
        _store_event(db, release, "released", by=by, note=note, looked_at=looked_at, now=now)
        released = release_of(db, batch_id)
    log.info("grades_released", batch_id=batch_id, revision=release.revision)
    return Released(released, looked_at, is_new=True)


def withdraw_release(runtime: Runtime, batch_id: str, *, by: str, note: str) -> Released:
    """Withdraw a release: the grades are provisional again.

    Raises:
        SettingsError: If nothing is released, or no reason is given.
    """
    now = runtime.clock()
    with runtime.store.write() as db:
        load_batch(db, batch_id)
        release = release_of(db, batch_id)
        if release.status not in {"released", "changed since release"}:
            msg = f"Nothing of batch '{batch_id}' is released, so nothing can be withdrawn."
            raise SettingsError(msg)
        if not by.strip() or not note.strip():
            msg = "Say who withdraws the release (--by) and why (--note)."
            raise SettingsError(msg)
        _store_event(db, release, "withdrawn", by=by, note=note, looked_at={}, now=now)
        withdrawn = release_of(db, batch_id)
    log.info("release_withdrawn", batch_id=batch_id, revision=release.revision)
    return Released(withdrawn, {}, is_new=True)


def _refuse_release(db: Session, record: BatchRecord, release: Release, by: str) -> None:
    problem = None
    if not by.strip():
        problem = "say who releases it: --by NAME"
    elif not record.has_ended:
        problem = "it is still under way: wait for its end"
    elif release.release_rule != "needs_sign_off":
        problem = "it needs no sign-off (`release: needs_sign_off` in its batch.yaml)"
    elif release.status == "no grades":
        problem = "it has no grades"
    elif late_verdicts(db, record.batch_id):
        problem = (
            "verdicts of people have come that its grades do not know of:"
            f" `cj moderate {record.batch_id}` grades it again and shows what to look at"
        )
    if problem is not None:
        msg = f"Batch '{record.batch_id}' was not released: {problem}."
        raise SettingsError(msg)


def _looked_at(
    db: Session, batch_id: str, release: Release, queue: Sequence[str]
) -> dict[str, Any]:
    rows = db.rows(
        "SELECT essay_id, kind FROM moderation_decisions WHERE batch_id = ? AND revision = ?",
        [batch_id, release.revision],
    )
    decided = {row["essay_id"] for row in rows if row["kind"] != "judge"}
    open_tasks = db.one(
        "SELECT count(*) AS n FROM v_judging_tasks WHERE batch_id = ? AND n_verdicts = 0"
        " AND part = 'moderation'",
        [batch_id],
    )
    return {
        "n_in_queue": len(queue),
        "n_looked_at": len(decided & set(queue)),
        "n_decisions": {
            kind: sum(row["kind"] == kind for row in rows)
            for kind in ("accept", "override", "judge", "exclude")
        },
        "n_pairs_open_for_people": int(open_tasks["n"]) if open_tasks else 0,
        "not_looked_at": [essay_id for essay_id in queue if essay_id not in decided],
    }


def _store_event(
    db: Session,
    release: Release,
    kind: str,
    *,
    by: str,
    note: str,
    looked_at: dict[str, Any],
    now: datetime,
) -> None:
    row = {
        "batch_id": release.batch_id,
        "number": _last_number(db, "release_events", release.batch_id) + 1,
        "kind": kind,
        "revision": release.revision,
        "released_by": by.strip(),
        "note": note.strip()[:MAX_REASON],
        "looked_at": looked_at,
        "released_at": now,
    }
    db.insert("release_events", [row])


def _last_number(
    db: Session, table: Literal["moderation_decisions", "release_events"], batch_id: str
) -> int:
    row = db.one(
        f"SELECT coalesce(max(number), 0) AS n FROM {table} WHERE batch_id = ?",  # noqa: S608
        [batch_id],
    )
    return int(row["n"]) if row else 0


def _problems(record: BatchRecord, grades: dict[str, dict[str, Any]], each: Decision) -> list[str]:
    essay_id = each.essay_id
    if essay_id not in record.essay_ids:
        return [f"there is no essay '{essay_id}'{nearest(essay_id, record.essay_ids)}"]
    problems = []
    if not each.by.strip():
        problems.append("say who decides: --by NAME")
    if each.kind != "accept" and not each.reason.strip():
        problems.append(f"'{essay_id}': say why (--reason)")
    is_student = essay_id not in record.anchor_grades
    if each.kind in {"accept", "override", "exclude"} and not is_student:
        problems.append(f"'{essay_id}' is an anchor, whose grade is `cj regrade --anchor-grade`'s")
    elif each.kind in {"accept", "override", "exclude"} and essay_id not in grades:
        problems.append(f"'{essay_id}' has no grade")
    if each.kind == "override":
        known = (
            load_scale(record.settings.scale, record.own_scale).steps
            if record.settings.scale
            else ()
        )
        if each.grade not in known:
            problems.append(
                f"'{essay_id}': {each.grade!r} is not on {record.settings.scale}:"
                f" {', '.join(known)}"
            )
    return problems

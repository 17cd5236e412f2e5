"""A batch folder becomes rows; handing in the same folder twice changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from cj_pipeline.batch.essays import SharedText
from cj_pipeline.errors import BatchProblemsError, SettingsError, UnpricedModelError
from cj_pipeline.intake.batch_folder import Batch, read_batch
from cj_pipeline.intake.inbox import note_problems
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.live.profiles import ResolvedProfile
from cj_pipeline.pairing.judge_shares import shares_problem
from cj_pipeline.progress.events import record_progress
from cj_pipeline.queries.batch_record import batch_correlation_id
from cj_pipeline.queries.live_profile import profile_of_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.obstacles import batch_obstacles, unknown_links
from cj_pipeline.steps.plan_people import IMPORTED
from cj_pipeline.steps.spending_limits import (
    breached_ceilings,
    installation,
    refused_connections,
    unallowed_judges,
)
from cj_pipeline.store.session import Session

log = structlog.get_logger()


@dataclass(frozen=True)
class Ingested:
    """What a batch was found to hold."""

    batch_id: str
    n_essays: int
    n_anchors: int
    n_bytes: int
    is_new: bool


def ingest(
    runtime: Runtime,
    folder: Path,
    *,
    explicit: Mapping[str, Any] | None = None,
    batch_id: str | None = None,
    runner_mode: str = "execute",
    may_return: bool = False,
) -> Ingested:
    """Take a batch folder into the store, whole or not at all.

    Args:
        engine: The pipeline's connections.
        folder: As DESIGN section 1 describes it.
        explicit: Settings that win over `batch.yaml`.
        batch_id: The batch's name; by default the folder's.
        runner_mode: `execute`, or `dry-run` when nothing may be sent.
        may_return: Whether a batch that was removed for good may come back.

    Raises:
        BatchProblemsError: With everything that is wrong; the batch is recorded as rejected.
    """
    try:
        batch = read_batch(folder, explicit=explicit, batch_id=batch_id)
    except BatchProblemsError as error:
        record_rejection(runtime, folder, error, runner_mode)
        raise
    return ingest_batch(runtime, batch, runner_mode=runner_mode, may_return=may_return)


def stored_batch(db: Session, batch_id: str) -> Ingested | None:
    """Return what was ingested of a batch; None where it is not in the store, or was rejected."""
    row = db.one(
        "SELECT count(*) AS n_essays, count(*) FILTER (is_anchor) AS n_anchors,"
        " coalesce(sum(n_bytes), 0) AS n_bytes FROM essays JOIN batches USING (batch_id)"
        " WHERE batch_id = ? AND state <> 'rejected'",
        [batch_id],
    )
    if row is None or not row["n_essays"]:
        return None
    return Ingested(batch_id, row["n_essays"], row["n_anchors"], int(row["n_bytes"]), is_new=False)


def ingest_batch(
    runtime: Runtime, batch: Batch, *, runner_mode: str = "execute", may_return: bool = False
) -> Ingested:
    """Take a batch that was read from its folder into the store, whole or not at all.

    Arguments as for `ingest`.

    Raises:
        BatchProblemsError: With everything that is wrong; the batch is recorded as rejected.
    """
    try:
        is_new = store_batch(runtime, batch, runner_mode=runner_mode, may_return=may_return)
    except BatchProblemsError as error:
        record_rejection(runtime, Path(batch.source_path), error, runner_mode)
        raise
    log.info("batch_ingested", batch_id=batch.batch_id, runner_mode=runner_mode, is_new=is_new)
    return Ingested(
        batch_id=batch.batch_id,
        n_essays=len(batch.essays),
        n_anchors=len(batch.anchors),
        n_bytes=sum(essay.n_bytes for essay in batch.essays),
        is_new=is_new,
    )


def store_batch(
    runtime: Runtime, batch: Batch, *, runner_mode: str, may_return: bool = False
) -> bool:
    """Store a batch and return whether it is new; nobody is told, and no rejection is recorded.

    Arguments as for `ingest`.

    Raises:
        BatchProblemsError: With everything that is wrong with its judges, profile or links, or if
            the store has another batch of this name.
    """
    judges = load_judges(batch, runtime.providers_folder)
    if refused := _refused_connections(runtime, batch, judges):
        raise BatchProblemsError(batch.batch_id, refused)
    profile = profile_of_batch(batch, runtime.home, runtime.environment)
    despite: tuple[str, ...] = ()
    if runner_mode == "execute":
        said = installation(runtime)
        refused = unallowed_judges(judges, said)
        with runtime.store.read() as db:
            refused += breached_ceilings(db, said, batch.batch_id, 0.0, runtime.clock())
            is_known = db.one(
                "SELECT 1 FROM batches WHERE batch_id = ? AND state <> 'rejected'",
                [batch.batch_id],
            )
        if is_known is None:
            stands = batch_obstacles(runtime, batch, judges, profile.values)
            found = [f"{each.about}: {each.finding}" for each in stands]
            if batch.settings.values.anyway:
                despite = tuple(found)
            else:
                refused += found
        if refused:
            raise BatchProblemsError(batch.batch_id, refused)
    return _record(
        runtime, batch, judges, profile, runner_mode, despite=despite, may_return=may_return
    )


def load_judges(batch: Batch, providers_dir: Path | None = None) -> tuple[Judge, ...]:
    """Return the judges a batch names, its own folder's `judges/` before the built-in ones.

    `providers_dir` holds the installation's own provider definitions.

    Raises:
        BatchProblemsError: With every judge that cannot be used or has no price.
    """
    judges, problems = [], []
    mode, language = batch.settings.values.batching_mode, batch.settings.values.language
    folder = Path(batch.source_path) / "judges"
    for name in batch.settings.values.judges:
        try:
            judge = load_judge(name, folder, providers_dir, language)
            _ = judge.price
            judges.append(judge)
            if mode == "provider_batch_api" and not judge.has_jobs:
                problems.append(
                    f"batch.yaml: judges: '{name}' is reached through a server without a batch"
                    " endpoint: set llm_batching_mode to per_request or serial_bundle"
                )
        except (SettingsError, UnpricedModelError) as error:
            problems.append(f"batch.yaml: judges: {error}")
    problems += _problems_with_people(batch, judges)
    if problems:
        raise BatchProblemsError(batch.batch_id, problems)
    return tuple(judges)


def _refused_connections(runtime: Runtime, batch: Batch, judges: Sequence[Judge]) -> list[str]:
    """Return what the installation does not let the batch's own judges name.

    A batch that is in the store goes on with the judges that it was taken in with.
    """
    refused = refused_connections(runtime, judges, Path(batch.source_path) / "judges")
    if not refused:
        return []
    with runtime.store.read() as db:
        row = db.one(
            "SELECT 1 FROM batches WHERE batch_id = ? AND state <> 'rejected'"
            " AND content_sha256 = ?",
            [batch.batch_id, batch.content_sha256],
        )
    return refused if row is None else []


def _problems_with_people(batch: Batch, judges: Sequence[Judge]) -> list[str]:
    settings = batch.settings.values
    people = [judge.name for judge in judges if judge.is_human]
    models = [judge.name for judge in judges if not judge.is_human]
    problems = []
    if people and not models:
        problems.append(
            f"batch.yaml: judges: {', '.join(people)} are people, who judge beside a model: name"
            " one more judge (verdicts that people gave without any are `cj verdicts import`)"
        )
    if not people and batch.settings.origins["people"] != "built-in" and models:
        problems.append(
            "batch.yaml: people: no judge is `provider: human`: add one to judges, such as"
            " the built-in `people`"
        )
    named = [name for name in people if name in settings.judge_shares]
    if named:
        problems.append(
            f"batch.yaml: judge_shares: {', '.join(named)} are people: their share is"
            " `people: {share: ...}`"
        )
    elif settings.judge_shares and models and len(judges) == len(settings.judges):
        problem = shares_problem(settings.judge_shares, models)
        problems += [f"batch.yaml: {problem}"] if problem else []
    if people and models and settings.judge_choice == "by_worth" and len(models) < 2:
        problems.append("batch.yaml: judge_choice: by_worth needs several models to choose from")
    if IMPORTED in people:
        problems.append(
            f"batch.yaml: judges: '{IMPORTED}' is the name of imported verdicts: give it another"
        )
    return problems


def _record(
    runtime: Runtime,
    batch: Batch,
    judges: tuple[Judge, ...],
    profile: ResolvedProfile,
    runner_mode: str,
    *,
    despite: Sequence[str],
    may_return: bool,
) -> bool:
    settings = batch.settings.values
    now = runtime.clock()
    with runtime.store.write() as db:
        known = db.one(
            "SELECT content_sha256, state, settings FROM batches WHERE batch_id = ?",
            [batch.batch_id],
        )
        if known is not None and known["state"] != "rejected":
            if known["content_sha256"] == batch.content_sha256 or _only_judges_changed(
                db, batch, judges
            ):
                given = _given_by_hand(batch, known["settings"])
                priority = given.pop("priority", None) if known["state"] == "running" else None
                _refuse_other_settings(batch, given, known["settings"])
                if priority is not None:
                    _set_priority(db, batch.batch_id, priority, now)
                if known["state"] == "running":
                    _ask_changed_judges(db, batch.batch_id, judges, now)
                return False
            problem = (
                "a batch of this name with other content is in the store already; what was "
                "requested and paid for stays as it is, so submit the new content under another "
                "name"
            )
            raise BatchProblemsError(batch.batch_id, [problem])
        if runner_mode == "execute":
            _refuse_unknown_links(db, batch)
            if not may_return:
                _refuse_forgotten(db, batch)
        db.insert(
            "batches",
            [
                {
                    "batch_id": batch.batch_id,
                    "title": settings.title or batch.batch_id,
                    "source_path": batch.source_path,
                    "content_sha256": batch.content_sha256,
                    "state": "running",
                    "end_reason": None,
                    "settings": settings.model_dump(mode="json"),
                    "settings_origins": dict(batch.settings.origins),
                    "metadata": {
                        "llm_batching_mode": settings.batching_mode,
                        "llm_batching_mode_override": settings.llm_batching_mode_override,
                        "comparison_budget": {
                            "max_pairs_requested": settings.max_pairwise_comparisons,
                            "source": batch.settings.origins["max_pairwise_comparisons"],
                        },
                        "profile": profile.as_json(),
                        "notices": list(batch.notices),
                        **({"started_despite": list(despite)} if despite else {}),
                    },
                    "problems": [],
                    "runner_mode": runner_mode,
                    "correlation_id": batch_correlation_id(batch.batch_id),
                    "created_at": now,
                    "updated_at": now,
                    "ended_at": None,
                }
            ],
            on_conflict="replace",
        )
        own = {"batch_id": batch.batch_id}
        db.insert(
            "essays",
            [
                own
                | {"position": position, "is_anchor": essay.is_anchor}
                | vars(essay)
                | {"attributes": dict(essay.attributes), "notes": list(essay.notes)}
                for position, essay in enumerate(batch.essays, start=1)
            ],
        )
        db.insert("shared_texts", [own | _shared_row(shared) for shared in batch.shared])
        db.insert("documents", [own | vars(document) for document in batch.documents])
        db.insert("judges", [own | _judge_row(judge) for judge in judges])
        if runner_mode == "execute":
            record_progress(db, batch.batch_id, now)
    return True


_MAY_BE_CHANGED = """
    WITH held AS (
        SELECT judge_id FROM v_judge_holds WHERE batch_id = $batch AND waiting_for = 'person'
    ),
    others AS (
        SELECT judge_id, replaced_at IS NOT NULL AS is_replaced, judge_id IN (FROM held) AS is_held
        FROM judges WHERE batch_id = $batch AND name = $name AND judge_id <> $judge
    )
    SELECT judge_id FROM others
    WHERE NOT EXISTS (SELECT 1 FROM others WHERE NOT is_replaced AND NOT is_held)
"""
"""The judges of a name that gave no verdict and are held, or were, and are another one's now."""


def _only_judges_changed(db: Session, batch: Batch, judges: Sequence[Judge]) -> bool:
    """Whether a folder differs from its batch only in judges that may be changed.

    What is stored is held against the folder: its essays, and every document.
    """
    own = [batch.batch_id]
    essays = db.rows("SELECT essay_id, grade, sha256 FROM essays WHERE batch_id = ?", own)
    documents = db.rows("SELECT kind, sha256 FROM documents WHERE batch_id = ?", own)
    is_same = {(e["essay_id"], e["grade"], e["sha256"]) for e in essays} == {
        (e.essay_id, e.grade, e.sha256) for e in batch.essays
    } and {(d["kind"], d["sha256"]) for d in documents} == {
        (d.kind, d.sha256) for d in batch.documents
    }
    stored = {row["judge_id"] for row in db.rows("FROM judges WHERE batch_id = ?", own)}
    return is_same and all(
        judge.judge_id in stored
        or db.rows(
            _MAY_BE_CHANGED,
            {"batch": batch.batch_id, "name": judge.name, "judge": judge.judge_id},
        )
        for judge in judges
    )


def _ask_changed_judges(db: Session, batch_id: str, judges: Sequence[Judge], now: datetime) -> None:
    """Give the open comparisons of judges that are held without a verdict to what they are now.

    A judge whose settings were changed is another judge of the same name. What the earlier one
    answered was paid for and stays its own; what it has in flight comes home to it.
    """
    for judge in judges:
        held = db.rows(
            _MAY_BE_CHANGED,
            {"batch": batch_id, "name": judge.name, "judge": judge.judge_id},
        )
        if not held:
            continue
        changed = [row["judge_id"] for row in held]
        db.insert("judges", [{"batch_id": batch_id} | _judge_row(judge)], on_conflict="ignore")
        keys = {"batch": batch_id, "changed": changed}
        db.execute(
            "UPDATE judges SET replaced_at = coalesce(replaced_at, $now) WHERE batch_id = $batch"
            " AND judge_id IN (SELECT unnest($changed))",
            keys | {"now": now},
        )
        db.execute(
            "UPDATE judges SET replaced_at = NULL WHERE batch_id = ? AND judge_id = ?",
            [batch_id, judge.judge_id],
        )
        db.execute(
            "DELETE FROM comparisons WHERE batch_id = $batch AND status = 'failed'"
            " AND judge_id IN (SELECT unnest($changed))",
            keys,
        )
        db.execute(
            "UPDATE comparison_pairs SET judge_id = $judge WHERE batch_id = $batch AND judge_id IN"
            " (SELECT unnest($changed)) AND comparison_id NOT IN (SELECT comparison_id FROM"
            " attempts WHERE batch_id = $batch AND outcome IS NULL) AND comparison_id NOT IN"
            " (SELECT comparison_id FROM comparisons WHERE batch_id = $batch)",
            keys | {"judge": judge.judge_id},
        )
        log.info("judge_changed", batch_id=batch_id, judge=judge.name, judge_id=judge.judge_id)


def _refuse_unknown_links(db: Session, batch: Batch) -> None:
    """A batch to be placed on the scale of one that is not there would wait for it in vain."""
    if problems := unknown_links(db, batch):
        raise BatchProblemsError(batch.batch_id, problems, may_pass=True)


def _refuse_forgotten(db: Session, batch: Batch) -> None:
    """What was removed for good does not come back by itself, under whatever name."""
    row = db.one(
        "SELECT batch_id, forgotten_at FROM forgotten WHERE essay_alias IS NULL"
        " AND (batch_id = ? OR content_sha256 = ?) ORDER BY forgotten_at DESC LIMIT 1",
        [batch.batch_id, batch.content_sha256],
    )
    if row is None:
        return
    problem = (
        f"it was removed for good on {row['forgotten_at']:%Y-%m-%d}, as batch"
        f" '{row['batch_id']}': take the folder away, or give --again to `cj execute` to judge and"
        " pay for it again"
    )
    raise BatchProblemsError(batch.batch_id, [problem])


def _shared_row(shared: SharedText) -> dict[str, Any]:
    essay = shared.essay
    return {
        "essay_id": essay.essay_id,
        "judged_id": shared.judged_id,
        "given_id": essay.given_id,
        "name": essay.name,
        "group": essay.group,
        "attributes": dict(essay.attributes),
        "file_name": essay.file_name,
        "source_path": essay.source_path,
    }


def _judge_row(judge: Judge) -> dict[str, Any]:
    return {
        "judge_id": judge.judge_id,
        "name": judge.name,
        "provider": judge.provider,
        "model": judge.model,
        "template": judge.template.name,
        "definition": judge.definition(),
        "is_simulated": judge.is_simulated,
    }


def _given_by_hand(batch: Batch, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was set by hand and is not as the batch was taken in."""
    wanted = batch.settings.values.model_dump(mode="json")
    return {
        key: wanted[key]
        for key, origin in batch.settings.origins.items()
        if origin == "explicit" and wanted[key] != known.get(key)
    }


def _set_priority(db: Session, batch_id: str, priority: str, now: datetime) -> None:
    """Change whose turn it is, which changes no verdict; each wave and each run reads it anew."""
    db.execute(
        "UPDATE batches SET settings = json_merge_patch(settings, ?), updated_at = ?,"
        " settings_origins = json_merge_patch(settings_origins, ?) WHERE batch_id = ?",
        [json.dumps({"priority": priority}), now, json.dumps({"priority": "explicit"}), batch_id],
    )
    log.info("priority_set", batch_id=batch_id, priority=priority)


def _refuse_other_settings(
    batch: Batch, given: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    """What was set by hand must not be dropped in silence because the batch is there already."""
    problems = [
        f"{key} was {known.get(key)!r} when the batch was ingested and cannot become {value!r}"
        " now: submit it under another name, or leave that option out"
        for key, value in given.items()
    ]
    if problems:
        raise BatchProblemsError(batch.batch_id, problems)


def record_rejection(
    runtime: Runtime, folder: Path, error: BatchProblemsError, runner_mode: str = "execute"
) -> None:
    """A rejected batch stays visible with its problems until a mended one replaces it."""
    now = runtime.clock()
    with runtime.store.write() as db:
        note_problems(db, folder, error.problems, may_pass=error.may_pass)
        known = db.one("SELECT state FROM batches WHERE batch_id = ?", [error.batch_id])
        if known is not None and known["state"] != "rejected":
            return
        too_few = any("too few essays" in problem for problem in error.problems)
        db.insert(
            "batches",
            [
                {
                    "batch_id": error.batch_id,
                    "title": error.batch_id,
                    "source_path": str(folder),
                    "content_sha256": "",
                    "state": "rejected",
                    "end_reason": "insufficient_essays" if too_few else None,
                    "settings": {},
                    "settings_origins": {},
                    "metadata": {},
                    "problems": list(error.problems),
                    "runner_mode": runner_mode,
                    "correlation_id": batch_correlation_id(error.batch_id),
                    "created_at": now,
                    "updated_at": now,
                    "ended_at": now,
                }
            ],
            on_conflict="replace",
        )

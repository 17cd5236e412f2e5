"""A batch folder becomes rows; handing in the same folder twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from cj_pipeline.planning.obstacles import batch_obstacles, unknown_links
from cj_pipeline.planning.spending_limits import (
    breached_ceilings,
    installation,
    refused_connections,
    unallowed_judges,
)
from cj_pipeline.progress.events import record_progress
from cj_pipeline.provider_jobs.changes import StoredBatch, apply_changes, judge_row
from cj_pipeline.queries.batch_record import batch_correlation_id
from cj_pipeline.queries.live_profile import profile_of_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.batch_flags import spend_cap_raised
from cj_pipeline.steps.plan_people import IMPORTED
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
        missing: list[str] = []
        if is_known is None:
            stands = batch_obstacles(runtime, batch, judges, profile.values)
            found = [f"{each.about}: {each.finding}" for each in stands]
            if batch.settings.values.anyway:
                despite = tuple(found)
            else:
                refused += found
            missing = _missing_keys(runtime, judges)
        if refused or missing:
            # Once a key is there, the batch is right as it is.
            raise BatchProblemsError(batch.batch_id, [*refused, *missing], may_pass=not refused)
    return _record(
        runtime, batch, judges, profile, runner_mode, despite=despite, may_return=may_return
    )


def _missing_keys(runtime: Runtime, judges: Sequence[Judge]) -> list[str]:
    """Return what to do about each key without which nothing can be sent."""
    from cj_pipeline.providers.registry import missing_key

    told = [missing_key(each, runtime.environment, runtime.home) for each in judges]
    return [problem for problem in told if problem]


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
        known = db.record(
            StoredBatch,
            "FROM batches WHERE batch_id = ? AND state <> 'rejected'",
            [batch.batch_id],
        )
        if known is not None:
            if apply_changes(db, known, batch, judges, profile=profile, now=now):
                spend_cap_raised(db, batch.batch_id, now)
            return False
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
        db.insert("judges", [own | judge_row(judge) for judge in judges])
        if runner_mode == "execute":
            record_progress(db, batch.batch_id, now)
    return True


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

"""What may be changed of a batch under way, and what is refused.

A judge that is held without a verdict may be changed, or another may take its place. Settings that
say how, when and for how much requests are sent may be changed. All else decides what is compared,
or what its verdicts come to: then half of the batch would be one thing and half another. What was
paid for stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import Batch
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import Judge
from cj_pipeline.live.profiles import ResolvedProfile
from cj_pipeline.store.session import Session

log = structlog.get_logger()

MAY_CHANGE = frozenset(
    {
        "spend_cap_usd",
        "canary_requests",
        "max_answers_without_verdict",
        "max_attempts",
        "incomplete_after_s",
        "stall_after_s",
        "priority",
        "profile",
        "profile_set",
    }
)
"""Settings that change neither what is compared nor what is made of it."""

MOST_SHOWN = 5
"""Names of files in a message."""

OTHER_CONTENT = (
    "a batch of this name with other content is in the store already; what was requested and paid"
    " for stays as it is, so submit the new content under another name"
)


@dataclass(frozen=True)
class StoredBatch:
    """What the store holds of a batch that is handed in again."""

    batch_id: str
    state: str
    content_sha256: str
    settings: dict[str, Any]
    settings_origins: dict[str, Any]
    metadata: dict[str, Any]

    @property
    def is_running(self) -> bool:
        """Whether something may still be changed."""
        return self.state == "running"


def apply_changes(
    db: Session,
    known: StoredBatch,
    batch: Batch,
    judges: Sequence[Judge],
    *,
    profile: ResolvedProfile,
    now: datetime,
) -> bool:
    """Change what may be changed of a batch that is in the store, by what its folder holds now.

    Returns:
        Whether it may cost more than before.

    Raises:
        BatchProblemsError: If anything else was changed; then nothing is.
    """
    is_same = known.content_sha256 == batch.content_sha256
    settings = _changed_settings(known, batch, only_by_hand=is_same)
    exchanged = _exchanged(settings)
    problems = [] if is_same else _other_files(db, batch)
    if exchanged.new is not None or not is_same:
        problems += _other_judges(db, batch, judges, exchanged)
    refused = {
        key: value
        for key, value in settings.items()
        if not (known.is_running and (key in MAY_CHANGE or key in exchanged.keys))
    }
    problems += [_refusal(known, key, *value) for key, value in refused.items()]
    if problems:
        raise BatchProblemsError(batch.batch_id, problems)
    if not known.is_running:
        return False
    _store_settings(db, known, batch, settings, profile=profile, now=now)
    if not is_same:
        _store_content(db, batch, now)
    _ask_changed_judges(db, batch.batch_id, judges, exchanged, now)
    return _is_raised(settings.get("spend_cap_usd"))


def _changed_settings(
    known: StoredBatch, batch: Batch, *, only_by_hand: bool
) -> dict[str, tuple[Any, Any]]:
    """Return each setting that is not as the batch was taken in: what it was, and what it is.

    What was set by hand when it was taken in stays, until it is set by hand again.
    """
    was = BatchSettings.model_validate(known.settings).model_dump(mode="json")
    wanted = batch.settings.values.model_dump(mode="json")
    return {
        key: (was[key], wanted[key])
        for key, origin in batch.settings.origins.items()
        if was[key] != wanted[key]
        and (
            origin == "explicit"
            or not (only_by_hand or known.settings_origins.get(key) == "explicit")
        )
    }


@dataclass(frozen=True)
class _Exchanged:
    """A judge that another one of another name is to replace; and the settings that say so."""

    gone: str | None = None
    new: str | None = None
    keys: frozenset[str] = frozenset()

    def names_of(self, judge: Judge) -> list[str]:
        """Return the names of the judges that `judge` may be a change of."""
        is_new = self.new is not None and judge.name == self.new
        return [judge.name, self.gone] if is_new and self.gone is not None else [judge.name]


def _exchanged(settings: Mapping[str, tuple[Any, Any]]) -> _Exchanged:
    """Return which judge was exchanged for which, where that is all that differs in the panel."""
    if "judges" not in settings:
        return _Exchanged()
    was, wanted = settings["judges"]
    gone, new = set(was) - set(wanted), set(wanted) - set(was)
    if len(gone) != 1 or len(new) != 1 or len(was) != len(wanted):
        return _Exchanged()
    (old_name,), (new_name,) = gone, new
    keys = {"judges"}
    if "judge_shares" in settings:
        before, after = settings["judge_shares"]
        if {new_name if name == old_name else name: share for name, share in before.items()} == (
            after
        ):
            keys.add("judge_shares")
    return _Exchanged(old_name, new_name, frozenset(keys))


def _other_files(db: Session, batch: Batch) -> list[str]:
    """Return which texts of a folder are not those that were taken in; names and grades count."""
    own = [batch.batch_id]
    stored = _marks(
        db.rows("FROM essays WHERE batch_id = ?", own)
        + db.rows("FROM shared_texts WHERE batch_id = ?", own)
        + db.rows("FROM documents WHERE batch_id = ? AND kind <> 'batch'", own)
    )
    given = _marks(
        [vars(essay) for essay in batch.essays]
        + [vars(shared.essay) for shared in batch.shared]
        + [vars(document) for document in batch.documents if document.kind != "batch"]
    )
    other = sorted(
        place for place in stored.keys() | given.keys() if stored.get(place) != given.get(place)
    )
    shown = ", ".join(other[:MOST_SHOWN]) + (", ..." if len(other) > MOST_SHOWN else "")
    return [f"{OTHER_CONTENT}: others are {shown}"] if other else []


def _marks(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return what must stay the same of each text, by where it was read."""
    return {
        row["source_path"]: (
            *(row.get(key) for key in ("essay_id", "grade", "given_id", "name", "group")),
            json.dumps(dict(row.get("attributes") or {}), sort_keys=True),
            # What stands for another essay's text was never stored itself.
            None if "judged_id" in row else row.get("sha256"),
        )
        for row in rows
    }


_MAY_BE_CHANGED = """
    WITH held AS (
        SELECT judge_id FROM v_judge_holds WHERE batch_id = $batch AND waiting_for = 'person'
    ),
    others AS (
        SELECT judge_id, replaced_at IS NOT NULL AS is_replaced, judge_id IN (FROM held) AS is_held
        FROM judges
        WHERE batch_id = $batch AND name IN (SELECT unnest($names)) AND judge_id <> $judge
    )
    SELECT judge_id FROM others
    WHERE NOT EXISTS (SELECT 1 FROM others WHERE NOT is_replaced AND NOT is_held)
"""
"""The judges of these names that gave no verdict and are held, or were, and are another's now."""


def _changed_into(db: Session, batch_id: str, judge: Judge, exchanged: _Exchanged) -> list[str]:
    """Return the judges of a batch whose place a judge takes; none where it may take no place."""
    rows = db.rows(
        _MAY_BE_CHANGED,
        {"batch": batch_id, "names": exchanged.names_of(judge), "judge": judge.judge_id},
    )
    return [row["judge_id"] for row in rows]


def _other_judges(
    db: Session, batch: Batch, judges: Sequence[Judge], exchanged: _Exchanged
) -> list[str]:
    """Return which judges are not those that were taken in and may not be changed now."""
    own = [batch.batch_id]
    stored = {
        row["judge_id"]: row["name"] for row in db.rows("FROM judges WHERE batch_id = ?", own)
    }
    known = {*stored.values(), exchanged.new}
    return [
        f"{OTHER_CONTENT}: judge '{judge.name}' is another one than before, and a judge may be"
        " changed only while it is held without a verdict"
        for judge in judges
        if judge.name in known
        and judge.judge_id not in stored
        and not _changed_into(db, batch.batch_id, judge, exchanged)
    ]


def _ask_changed_judges(
    db: Session, batch_id: str, judges: Sequence[Judge], exchanged: _Exchanged, now: datetime
) -> None:
    """Give the open comparisons of judges that are held without a verdict to what they are now.

    What the earlier one answered was paid for and stays its own; what it has in flight comes home
    to it.
    """
    for judge in judges:
        changed = _changed_into(db, batch_id, judge, exchanged)
        if not changed:
            continue
        db.insert("judges", [{"batch_id": batch_id} | judge_row(judge)], on_conflict="ignore")
        db.execute(
            "UPDATE judges SET replaced_at = coalesce(replaced_at, $now), replaced_by = $judge"
            " WHERE batch_id = $batch AND (judge_id IN (SELECT unnest($changed))"
            " OR replaced_by IN (SELECT unnest($changed)))",
            {"batch": batch_id, "changed": changed, "now": now, "judge": judge.judge_id},
        )
        db.execute(
            "UPDATE judges SET replaced_at = NULL, replaced_by = NULL"
            " WHERE batch_id = ? AND judge_id = ?",
            [batch_id, judge.judge_id],
        )
        hand_over(db, batch_id)
        log.info("judge_changed", batch_id=batch_id, judge=judge.name, judge_id=judge.judge_id)


def hand_over(db: Session, batch_id: str) -> None:
    """Give what is open of judges that were replaced to those in their place.

    Open is also what they failed at, and what comes home from them without a verdict.
    """
    db.execute(
        "DELETE FROM comparisons WHERE batch_id = $batch AND status = 'failed' AND judge_id IN"
        " (SELECT judge_id FROM judges WHERE batch_id = $batch AND replaced_by IS NOT NULL)",
        {"batch": batch_id},
    )
    db.execute(
        "UPDATE comparison_pairs SET judge_id = j.replaced_by FROM judges j"
        " WHERE comparison_pairs.batch_id = $batch AND j.batch_id = $batch"
        " AND j.judge_id = comparison_pairs.judge_id AND j.replaced_by IS NOT NULL"
        " AND comparison_id NOT IN"
        " (SELECT comparison_id FROM attempts WHERE batch_id = $batch AND outcome IS NULL)"
        " AND comparison_id NOT IN (SELECT comparison_id FROM comparisons WHERE batch_id = $batch)",
        {"batch": batch_id},
    )


def judge_row(judge: Judge) -> dict[str, Any]:
    """Return a judge as the store keeps it, without its batch."""
    return {
        "judge_id": judge.judge_id,
        "name": judge.name,
        "provider": judge.provider,
        "model": judge.model,
        "template": judge.template.name,
        "definition": judge.definition(),
        "is_simulated": judge.is_simulated,
    }


def _refusal(known: StoredBatch, key: str, was: Any, wanted: Any) -> str:
    """Say of a setting that it cannot be changed, and what can be done."""
    ended = "" if known.is_running else " (the batch has ended)"
    return (
        f"{key} was {was!r} when the batch was ingested and cannot become {wanted!r} now{ended}:"
        " submit it under another name, or take that change back"
    )


def _store_settings(
    db: Session,
    known: StoredBatch,
    batch: Batch,
    settings: Mapping[str, tuple[Any, Any]],
    *,
    profile: ResolvedProfile,
    now: datetime,
) -> None:
    """Keep the settings that were changed, and since when each has been so."""
    if not settings:
        return
    kept = known.settings | {key: wanted for key, (_, wanted) in settings.items()}
    origins = known.settings_origins | {key: batch.settings.origins[key] for key in settings}
    metadata = known.metadata | {
        "settings_changed": [
            *known.metadata.get("settings_changed", []),
            *(
                {"key": key, "was": was, "is": wanted, "at": now.isoformat()}
                for key, (was, wanted) in sorted(settings.items())
            ),
        ]
    }
    if settings.keys() & {"profile", "profile_set"}:
        metadata["profile"] = profile.as_json()
    db.execute(
        "UPDATE batches SET settings = ?, settings_origins = ?, metadata = ?, updated_at = ?"
        " WHERE batch_id = ?",
        [*map(json.dumps, (kept, origins, metadata)), now, batch.batch_id],
    )
    log.info("settings_changed", batch_id=batch.batch_id, keys=sorted(settings))


def _is_raised(change: tuple[float | None, float | None] | None) -> bool:
    if change is None:
        return False
    was, wanted = change
    return was is not None and (wanted is None or wanted > was)


def _store_content(db: Session, batch: Batch, now: datetime) -> None:
    """Keep `batch.yaml` as it is now, and what the whole folder's checksum was at first."""
    written = next(document for document in batch.documents if document.kind == "batch")
    db.execute(
        "UPDATE documents SET content = ?, sha256 = ?, n_bytes = ?"
        " WHERE batch_id = ? AND kind = 'batch'",
        [written.content, written.sha256, written.n_bytes, batch.batch_id],
    )
    db.execute(
        "UPDATE batches SET first_content_sha256 = coalesce(first_content_sha256, content_sha256),"
        " content_sha256 = ?, updated_at = ? WHERE batch_id = ?",
        [batch.content_sha256, now, batch.batch_id],
    )

"""A batch placed on the scale of earlier ones: what is read for it, kept of it, and undone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from cj_pipeline.errors import SettingsError, UnscalableBatchError
from cj_pipeline.grading.grade_scales import load_scale, own_scale_problems, read_scale
from cj_pipeline.intake.settings import resolve_settings
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.essay_names import essay_labels, essay_named
from cj_pipeline.queries.linked_scale import read_linked_scale
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.project import Projected, project
from cj_pipeline.store.session import Session

log = structlog.get_logger()


def link(runtime: Runtime, batch_id: str, earlier: Sequence[str]) -> Projected:
    """Place an ended batch on the scale of earlier ones and grade it anew there.

    Nothing is asked or paid, and earlier gradings stay. What people see changes with `publish`.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        earlier: The batches to place it after, earliest first; none to take it off again.

    Raises:
        SettingsError: If the batch goes on, or a link cannot be made; nothing is changed then.
    """
    from cj_pipeline.steps.project import project

    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        if not record.has_ended:
            msg = f"Batch '{batch_id}' has not ended: wait for its end, then link it."
            raise SettingsError(msg)
        if earlier:
            try:
                read_linked_scale(db, record, tuple(earlier), fit_scale(db, record))
            except UnscalableBatchError as error:
                msg = f"Batch '{batch_id}' was not linked: {error}"
                raise SettingsError(msg) from error
        db.execute(
            "UPDATE batches SET settings = json_merge_patch(settings, ?),"
            " settings_origins = json_merge_patch(settings_origins, ?) WHERE batch_id = ?",
            [json.dumps({"link_to": list(earlier)}), json.dumps({"link_to": "explicit"}), batch_id],
        )
    projected = project(runtime, batch_id, again=True)
    log.info("batch_linked", batch_id=batch_id, link_to=earlier, revision=projected.revision)
    return projected


@dataclass(frozen=True)
class GradeChange:
    """An essay whose most probable grade is another one than in the grading before.

    Attributes:
        essay_id: The essay.
        called: What people call it.
        before: Its grade, as written; None where it had none.
        after: Its grade now; None where it has none.
    """

    essay_id: str
    called: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Regraded:
    """What a grading changed, against the one before it.

    Attributes:
        changes: Students whose grade is another one, by essay.
        reasons: What else is other than before, in words: anchors, scale, thresholds.
        n_students: How many students there are.
    """

    changes: tuple[GradeChange, ...]
    reasons: tuple[str, ...]
    n_students: int


def what_changed(db: Session, batch_id: str, revision: int) -> Regraded:
    """Return what a grading changed, against the one before it, and by what."""
    rows = db.rows(
        "SELECT e.essay_id, coalesce(b.fine_grade, b.grade) AS before,"
        " coalesce(a.fine_grade, a.grade) AS after FROM essays e"
        " LEFT JOIN grade_projections b ON b.batch_id = e.batch_id AND b.essay_id = e.essay_id"
        " AND b.revision = $revision - 1"
        " LEFT JOIN grade_projections a ON a.batch_id = e.batch_id AND a.essay_id = e.essay_id"
        " AND a.revision = $revision"
        " WHERE e.batch_id = $batch AND NOT e.is_anchor ORDER BY e.position",
        {"batch": batch_id, "revision": revision},
    )
    reports = {
        row["revision"]: row
        for row in db.rows(
            "SELECT revision, scale, anchor_grades, terms FROM grading_reports"
            " WHERE batch_id = $batch AND revision >= $revision - 1",
            {"batch": batch_id, "revision": revision},
        )
    }
    earlier, now = reports.get(revision - 1), reports.get(revision)
    called = essay_labels(db, batch_id)
    return Regraded(
        tuple(
            GradeChange(called=called[row["essay_id"]], **row)
            for row in rows
            if row["before"] != row["after"]
        ),
        tuple(_reasons(earlier, now, called)) if earlier and now else (),
        len(rows),
    )


def _reasons(
    earlier: Mapping[str, Any], now: Mapping[str, Any], called: Mapping[str, str]
) -> Iterator[str]:
    """Yield what gradings were made by and is other than before."""
    if earlier["scale"] != now["scale"]:
        yield f"scale: {earlier['scale']} -> {now['scale']}"
    for part, words in (("anchor_grades", "anchor"), ("terms", "setting")):
        was, became = earlier[part] or {}, now[part] or {}
        for key in sorted({*was, *became}):
            if was.get(key) != became.get(key):
                yield f"{words} {called.get(key, key)}: {was.get(key)} -> {became.get(key)}"


GRADED_BY = (
    "use_priors",
    "min_anchor_grades",
    "min_anchor_separation_z",
    "max_anchor_disagreement",
    "max_extrapolated_share",
    "max_inversion_p",
    "link_to",
    "scaled_scores",
)
"""The settings, beside the scale, that grades are made by or scores are shown by; no other may
change after the end."""


def regrade(
    runtime: Runtime,
    batch_id: str,
    *,
    scale: str | None = None,
    own_scale: bytes | None = None,
    anchor_grades: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    despite: Sequence[str] = (),
) -> Projected:
    """Grade an ended batch anew as a further revision; nothing is asked or paid.

    Earlier revisions stay, each with the scale and the anchors' grades it went by. What people
    see changes with `publish`.

    Args:
        engine: The pipeline's connections.
        batch_id: The batch.
        scale: The grade scale from now on; by default the one it had.
        own_scale: A scale of the batch's own as YAML, from now on in place of its `scale.yaml`.
        anchor_grades: Grades put right, by anchor.
        settings: Keys of `batch.yaml` that grades are made by (`GRADED_BY`), from now on.
        despite: Assertions of the batch's own, as they are written, that need not hold for its
            grades from now on; what is claimed of every batch cannot be waived.

    Raises:
        SettingsError: With everything that cannot be: a batch that goes on, an essay that is no
            anchor, a grade that is not on the scale, a scale that cannot be used, a setting that
            grades are not made by or may not be so, an assertion that is none of the batch's.
    """
    given = dict(settings or {})
    changed = dict(anchor_grades or {})
    if own_scale is not None:
        described = read_scale(own_scale)
        problems = own_scale_problems(scale or described.name, described)
        if problems:
            msg = "The grade scale cannot be used: " + "; ".join(problems) + "."
            raise SettingsError(msg)
        scale = described.name
    if scale is not None:
        given["scale"] = scale
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        changed = {essay_named(db, batch_id, one): grade for one, grade in changed.items()}
        if own_scale is not None:
            record = replace(record, own_scale=own_scale.decode("utf-8-sig"))
        record, wrong = _with_settings(db, record, given)
        problems = [*wrong, *_problems(record, changed)]
        own = [str(assertion) for assertion in record.settings.assertions]
        problems += [
            f"{each!r} is not one of its own assertions: {'; '.join(own) or 'it has none'}"
            for each in despite
            if each not in own
        ]
        if problems:
            msg = f"Batch '{batch_id}' was not graded again:\n" + "\n".join(
                f"  - {problem}" for problem in problems
            )
            raise SettingsError(msg)
        # As it is understood: what a part of a setting leaves out is gone, and not as it was.
        understood = record.settings.model_dump(mode="json")
        _change(db, batch_id, {key: understood[key] for key in given}, changed)
        if own_scale is not None:
            _keep_scale(db, batch_id, own_scale)
        if despite:
            _waive(db, record, despite)
    projected = project(runtime, batch_id, again=True)
    log.info(
        "batch_graded_again",
        batch_id=batch_id,
        revision=projected.revision,
        settings=given,
        n_anchor_grades_changed=len(changed),
        despite=list(despite),
    )
    return projected


def _with_settings(
    db: Session, record: BatchRecord, given: Mapping[str, Any]
) -> tuple[BatchRecord, list[str]]:
    """Return a batch with other settings to be graded by, and all that is wrong with them."""
    others = [key for key in given if key not in (*GRADED_BY, "scale")]
    if others:
        return record, [
            f"{key!r} is nothing that grades are made by, so it stays as it was: give"
            f" {', '.join(GRADED_BY)}"
            for key in others
        ]
    before = record.settings.model_dump(mode="json")
    resolved, problems = resolve_settings(before, given)
    if resolved is None:
        return record, [problem.removeprefix("batch.yaml: ") for problem in problems]
    changed = replace(record, settings=resolved.values)
    terms = changed.grading_terms
    if resolved.values.use_priors and terms is not None and terms.scale.priors is None:
        problems.append(f"use_priors: there are no published shares for {terms.scale.name}")
    if resolved.values.link_to and "link_to" in given and record.has_ended:
        try:
            read_linked_scale(db, changed, resolved.values.link_to, fit_scale(db, record))
        except UnscalableBatchError as error:
            problems.append(f"link_to: {error}")
    return changed, problems


def _problems(record: BatchRecord, changed: Mapping[str, str]) -> list[str]:
    problems, scale = [], record.settings.scale
    if not record.has_ended:
        problems.append("it has not ended: wait for its end, or cancel it")
    strangers = [essay_id for essay_id in changed if essay_id not in record.anchor_grades]
    problems += [f"essay '{essay_id}' is not one of its anchors" for essay_id in strangers]
    if scale is None:
        return problems
    known = load_scale(scale, record.own_scale).steps
    problems += [
        f"anchor '{essay_id}' has the grade {grade!r}, which {scale} does not know:"
        f" {', '.join(known)}"
        for essay_id, grade in {**record.anchor_grades, **changed}.items()
        if grade not in known and essay_id not in strangers
    ]
    return problems


def _waive(db: Session, record: BatchRecord, despite: Sequence[str]) -> None:
    waived = sorted({*record.metadata.get("graded_despite", ()), *despite})
    db.execute(
        "UPDATE batches SET metadata = json_merge_patch(metadata, ?) WHERE batch_id = ?",
        [json.dumps({"graded_despite": waived}), record.batch_id],
    )


def _change(
    db: Session, batch_id: str, given: Mapping[str, Any], changed: Mapping[str, str]
) -> None:
    if given:
        db.execute(
            "UPDATE batches SET settings = json_merge_patch(settings, ?),"
            " settings_origins = json_merge_patch(settings_origins, ?) WHERE batch_id = ?",
            [json.dumps(given), json.dumps(dict.fromkeys(given, "explicit")), batch_id],
        )
    for essay_id, grade in changed.items():
        db.execute(
            "UPDATE essays SET grade = ? WHERE batch_id = ? AND essay_id = ?",
            [grade, batch_id, essay_id],
        )


def _keep_scale(db: Session, batch_id: str, own_scale: bytes) -> None:
    """Keep the scale as a document; what earlier gradings went by is kept with them."""
    db.insert(
        "documents",
        [
            {
                "batch_id": batch_id,
                "kind": "scale",
                "content": own_scale.decode("utf-8-sig"),
                "source_path": "scale.yaml",
                "sha256": hashlib.sha256(own_scale).hexdigest(),
                "n_bytes": len(own_scale),
            }
        ],
        on_conflict="replace",
    )

"""Whether an artefact is sound: checksums, scores and grades recomputed.

The file alone is enough for most of it, because it carries every verdict. With a store at hand its
rows are compared too, and with the batch folder the inputs. Writing one is `artefact`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import (
    BatchProblemsError,
    SettingsError,
    StoreError,
    UnknownBatchError,
    UnscalableBatchError,
)
from cj_pipeline.grading.rules import grade_by
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.intake.settings import BatchSettings, grading_terms, scoring_rules
from cj_pipeline.outputs.artefact import artefact_checksum
from cj_pipeline.outputs.contracts import violations
from cj_pipeline.queries.history import read_history
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import score_verdicts

if TYPE_CHECKING:
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.scale.certainty import ScorePosterior
    from cj_pipeline.store.session import Session

Document = Mapping[str, Any]

SCORE_TOLERANCE = 1e-6
"""In logits. The fit ends within 1e-10 of its maximum; other machines round otherwise."""

PROBABILITY_TOLERANCE = 0.02
"""Boundaries are sampled. With one seed the sample is the same on one machine, but where another
rounds a score in its twelfth digit it takes other steps, and probabilities move by up to .006."""

_BEFORE_SCORING_SETTINGS = {
    "position_effect": "off",
    "judge_discrimination": "off",
    "verdict_dependence": "off",
}
"""What artefacts were scored by that do not say so."""

_MAX_PER_KIND = 20
_SIGNS = ("", "-", "+")


def verify_artefact(
    path: Path, *, db: Session | None = None, batch_folder: Path | None = None
) -> list[str]:
    """Return all contradictions in an artefact and with the store; empty when all is well.

    Args:
        path: The artefact; the files its manifest lists are looked for next to it.
        db: A read session on a store that holds the batch, to compare with.
        batch_folder: The folder as it was handed in, to check the inputs' checksums.

    Raises:
        StoreError: If the file is no artefact at all.
    """
    document = _read(path)
    differences = [
        *_checksum_differences(document),
        *_contract_differences(document),
        *_file_differences(document, path.parent),
        *_score_differences(document),
    ]
    if batch_folder is not None:
        differences += _input_differences(document, batch_folder)
    if db is not None:
        differences += _store_differences(document, db)
    return differences


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        return {**document, "validation": {**document["validation"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as an artefact ({error}): give an assessment_run.*.json."
        raise StoreError(msg) from error


def _checksum_differences(document: Document) -> Iterator[str]:
    stated, found = document["validation"]["artefact_checksum"], artefact_checksum(document)
    if stated != found:
        yield f"artefact_checksum says {stated}, the document gives {found}: it was changed"


def _contract_differences(document: Document) -> Iterator[str]:
    name = document["validation"]["contract"]
    for violation in _some(violations(document, name)):
        yield f"breaks {name} at {violation}"


def _file_differences(document: Document, folder: Path) -> Iterator[str]:
    for entry in document["validation"]["manifest"]:
        if entry["relative_to"] != "this file":
            continue
        file = folder / entry["path"]
        if not file.resolve().is_relative_to(folder.resolve()):
            yield f"{entry['path']} lies outside {folder}, so it was not opened"
        elif not file.is_file():
            yield f"{entry['path']} is listed and not in {folder}"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            yield f"{entry['path']} has another checksum than listed: it was changed"


def _input_differences(document: Document, folder: Path) -> Iterator[str]:
    try:
        batch = read_batch(folder, batch_id=document["metadata"]["batch_id"])
    except BatchProblemsError as error:
        yield f"{folder} cannot be read as the batch: {error}"
        return
    found = {essay.source_path: essay.sha256 for essay in batch.essays}
    found |= {part.source_path: part.sha256 for part in batch.documents}
    listed = {
        entry["path"]: entry["sha256"]
        for entry in document["validation"]["manifest"]
        if entry["role"] == "input"
    }
    for source_path in sorted(listed.keys() - found):
        yield f"{source_path} was judged and is not in {folder}"
    for source_path in sorted(found.keys() - listed):
        yield f"{source_path} is in {folder} and was not judged"
    for source_path in sorted(found.keys() & listed):
        if found[source_path] != listed[source_path]:
            yield f"{source_path} has another checksum than listed: it was changed"
    if found == listed and batch.content_sha256 != document["metadata"]["content_sha256"]:
        yield f"{folder} holds other anchors' grades or other judges than were used"


def _score_differences(document: Document) -> Iterator[str]:
    """Refit the artefact's verdicts and compare scores, ranks, and then grades."""
    stated = {entry["essay_id"]: entry for entry in document["bt_summary"]}
    if not stated:
        return
    try:
        settings = BatchSettings.model_validate(
            _BEFORE_SCORING_SETTINGS
            | {key: entry["value"] for key, entry in document["settings"].items()}
        )
    except ValidationError as error:
        wrong = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors()}))
        yield f"its settings are none this version knows ({wrong}), so scores were not checked"
        return
    try:
        scale = score_verdicts(
            _essay_ids(document), judged_pairs(document), scoring_rules(settings)
        )
    except UnscalableBatchError as error:
        yield f"there are scores, and the verdicts give none: {error}"
        return
    posterior = score_posterior(scale, {row["anchor_id"] for row in document["inputs"]["anchors"]})
    yield from _some(_entry_differences(stated, scale, posterior))
    if document["grade_projections"] and not _not_checked(document):
        yield from _some(_grade_differences(document, settings, scale))


def left_unchecked(path: Path) -> list[str]:
    """Return what `verify_artefact` cannot recompute of an artefact, in plain words."""
    return _not_checked(_read(path))


def _not_checked(document: Document) -> list[str]:
    links = (document["grading"] or {}).get("links") or []
    if not links:
        return []
    chain = [links[0]["onto_batch_id"], *(link["placed_batch_id"] for link in links[:-1])]
    others = ", ".join(chain)
    return [f"Grades rest on the verdicts of {others} too, so they were not recomputed."]


def judged_pairs(document: Document) -> list[JudgedPair]:
    """Return the verdicts an artefact carries, in the order requested."""
    return [
        JudgedPair(row["essay_a_id"], row["essay_b_id"], row["winner"], row["judge_id"])
        for row in document["llm_comparisons"]
        if row["status"] == "succeeded"
    ]


def _essay_ids(document: Document) -> list[str]:
    inputs = document["inputs"]
    rows = sorted([*inputs["students"], *inputs["anchors"]], key=lambda row: row["position"])
    return [row["essay_id"] for row in rows]


def _entry_differences(
    stated: Mapping[str, Document], scale: Scale, posterior: ScorePosterior
) -> Iterator[str]:
    for i, essay_id in enumerate(scale.essay_ids):
        entry = stated.get(essay_id)
        if entry is None:
            yield f"{essay_id} has no score"
            continue
        for key, found in _recomputed(entry, scale, posterior, i):
            if abs(entry[key] - found) > SCORE_TOLERANCE:
                yield f"{essay_id}: {key} says {entry[key]:.6f}, the verdicts give {found:.6f}"
        if entry["comparison_count"] != int(scale.n_comparisons[i]):
            yield (
                f"{essay_id}: comparison_count says {entry['comparison_count']}, there are"
                f" {int(scale.n_comparisons[i])} verdicts"
            )


def _recomputed(
    entry: Document, scale: Scale, posterior: ScorePosterior, i: int
) -> list[tuple[str, float]]:
    """Return what an entry's scores should be, by what a score meant when it was written."""
    score, error = float(scale.scores[i]), float(scale.standard_errors[i])
    if entry.get("score_version", 1) == 1:
        return [("theta", score), ("standard_error", error)]
    return [
        ("theta", float(posterior.scores[i])),
        ("standard_error", float(posterior.standard_errors[i])),
        ("verdict_theta", score),
        ("verdict_standard_error", error),
    ]


def _grade_differences(document: Document, settings: BatchSettings, scale: Scale) -> Iterator[str]:
    own_scale = document["inputs"].get("grade_scale", {}).get("content")
    anchors = {row["anchor_id"]: row["grade"] for row in document["inputs"]["anchors"]}
    try:
        terms = grading_terms(settings, own_scale)
    except SettingsError as error:
        yield f"there are grades, and no scale they could be on: {error}"
        return
    if terms is None:
        yield "there are grades, and the settings name no scale"
        return
    sampled = (document.get("grading") or {}).get("sampled_grades")
    projections = grade_by(terms, scale, anchors, judged_pairs(document), sampled)
    if not projections.is_graded:
        yield f"there are grades, and the anchors give none: {projections.statement}"
        return
    found = dict(zip(projections.essay_ids, projections.probabilities, strict=True))
    for row in document["grade_projections"]:
        stated = row["probabilities"]
        recomputed = dict(zip(projections.grades, found[row["essay_id"]], strict=True))
        apart = max(abs(stated.get(grade, 0.0) - float(p)) for grade, p in recomputed.items())
        if apart > PROBABILITY_TOLERANCE:
            yield f"{row['essay_id']}: probabilities differ by up to {apart:.4f} from those found"
        elif row["grade"] != max(stated, key=stated.__getitem__):
            yield f"{row['essay_id']}: {row['grade']} is not its most probable grade"
        elif row.get("fine_grade", row["grade"]) not in {row["grade"] + sign for sign in _SIGNS}:
            yield f"{row['essay_id']}: {row['fine_grade']} is no way to write {row['grade']}"


def _store_differences(document: Document, db: Session) -> Iterator[str]:
    batch_id = document["metadata"]["batch_id"]
    try:
        history = read_history(db, batch_id)
    except UnknownBatchError:
        yield f"the store has no batch '{batch_id}'"
        return
    if history.batch["content_sha256"] != document["metadata"]["content_sha256"]:
        yield f"batch '{batch_id}' in the store was made from other inputs"
        return
    stored = {row["comparison_id"]: row for row in history.comparisons}
    stated_rows = {row["comparison_id"]: row for row in document["llm_comparisons"]}
    for kind, ids in (
        ("the store", stated_rows.keys() - stored),
        ("the artefact", stored.keys() - stated_rows),
    ):
        if ids:
            yield f"{len(ids)} comparisons are missing from {kind}, among them {min(ids)}"
    yield from _some(
        f"comparison {comparison_id}: {key} says {stated_rows[comparison_id][name]!r}, the store"
        f" {stored[comparison_id][key]!r}"
        for comparison_id in sorted(stated_rows.keys() & stored)
        for name, key in _COMPARED
        if (stated_rows[comparison_id][name] or None) != (stored[comparison_id][key] or None)
    )
    yield from _some(
        f"{row['essay_id']}: the store's score is {row['score']:.6f}"
        for row in history.last_scores
        if abs(row["score"] - _theta(document, row["essay_id"])) > SCORE_TOLERANCE
    )


_COMPARED = (
    ("status", "status"),
    ("winner", "winner"),
    ("essay_a_id", "essay_a"),
    ("essay_b_id", "essay_b"),
    ("judge_id", "judge_id"),
    ("prompt_hash", "prompt_sha256"),
    ("cost_usd", "cost_usd"),
)


def _theta(document: Document, essay_id: str) -> float:
    thetas = (e["theta"] for e in document["bt_summary"] if e["essay_id"] == essay_id)
    return float(next(thetas, float("inf")))


def _some(differences: Iterator[str]) -> Iterator[str]:
    """Yield the first differences of one kind and how many more there are."""
    left_out = 0
    for place, difference in enumerate(differences):
        if place < _MAX_PER_KIND:
            yield difference
        else:
            left_out += 1
    if left_out:
        yield f"and {left_out} more of this kind"

"""Whether an artefact is sound: signature, checksums, and every value recomputed or compared.

The file and those beside it are enough for most of it, because it carries every verdict. A store at
hand is asked whether it wrote that file, and compared value by value; the batch folder vouches for
the inputs. What nothing vouched for is listed. How values are recomputed is `verifying`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain as chained
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cj_pipeline.errors import (
    BatchProblemsError,
    SettingsError,
    StoreError,
    UnknownBatchError,
    UnscalableBatchError,
)
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.outputs.artefact import WrittenFile, artefact_checksum, artefact_document
from cj_pipeline.outputs.contracts import violations
from cj_pipeline.outputs.verifying import recomputing, refitting
from cj_pipeline.outputs.verifying.chains import batches_before, chain_of
from cj_pipeline.outputs.verifying.leaves import MISSING, Difference, differences, field_of, leaves
from cj_pipeline.outputs.verifying.recomputing import Beside, settings_of
from cj_pipeline.outputs.verifying.signature import check_signature
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.queries.linked_scale import read_linked_scale
from cj_pipeline.runtime import RunEnvironment

if TYPE_CHECKING:
    from cj_pipeline.grading.linked_scale import LinkedScale
    from cj_pipeline.intake.settings import BatchSettings
    from cj_pipeline.scale.bradley_terry import Scale
    from cj_pipeline.storage.signing import PublicKey
    from cj_pipeline.store.session import Session

Document = Mapping[str, Any]

TOLERANCE = 1e-6
"""In logits. The fit ends within 1e-10 of its maximum; other machines round otherwise."""

FIGURE_TOLERANCE = 1e-4
"""Of figures of the whole scale, which rest on hundreds of fits."""

PROBABILITY_TOLERANCE = 0.02
"""Boundaries are sampled. With one seed the sample is the same on one machine, but where another
rounds a score in its twelfth digit it takes other steps, and probabilities move by up to .006."""

_SAMPLED = re.compile(
    r"^(grade_projections\[\]\.(probabilities\.|expected_grade|confidence|placed_score)"
    r"|grading\.boundaries|grading\.linked_scores|bt_summary\[\]\.(p_above_next|theta_(low|upp)er))"
)
"""Fields that rest on samples."""

_SHOWS_ELSEWHERE = re.compile(
    r"^(bt_summary\[\]\.essay_id|grade_projections\[\]\.essay_id|metadata\.batch_id"
    r"|inputs\.(students|anchors)\[\]\.(essay_id|source_path)|inputs\.anchors\[\]\.grade"
    r"|(llm|pending)_comparisons\[\]\.sequence|judges\[\]\.definition\.(allow_ties|api|base_url"
    r"|model|name|provider)|validation\.artefact_checksum"
    r")$|^judges\[\]\.definition\.(settings|template)\."
)
"""Fields by which others are worked out, so that these differ where one of them was altered."""

_WRITTEN_BY_NOBODY = ("metadata.git_sha", "metadata.generated_at", "metadata.runner_version")
_OF_THE_MACHINE = (*_WRITTEN_BY_NOBODY, "validation.cli_environment")
"""Fields that no store has: by which code, on which machine and when the file was written."""

_MAX_PER_KIND = 20


@dataclass(frozen=True)
class Verified:
    """What checking an artefact came to.

    Attributes:
        differences: All contradictions; empty when all is well.
        notes: What a reader should know beside them.
        not_checked: Fields that nothing at hand vouches for.
    """

    differences: tuple[str, ...]
    notes: tuple[str, ...]
    not_checked: tuple[str, ...]


def verify_artefact(
    path: Path, *, db: Session | None = None, batch_folder: Path | None = None
) -> list[str]:
    """Return all contradictions in an artefact and with the store; see `verify`."""
    return list(verify(path, db=db, batch_folder=batch_folder).differences)


def verify(
    path: Path,
    *,
    db: Session | None = None,
    batch_folder: Path | None = None,
    key: PublicKey | None = None,
    own_keys: Sequence[PublicKey] = (),
    earlier: Sequence[Path] = (),
) -> Verified:
    """Check an artefact by all that is at hand.

    Args:
        path: The artefact; the files its manifest lists are looked for next to it.
        db: A read session on a store that holds the batch, to compare with.
        batch_folder: The folder as it was handed in, to check the inputs' checksums.
        key: The public key that must have signed it.
        own_keys: Other keys that are known to be ours.
        earlier: Artefacts of the batches it is linked to, where neither the store has them nor
            folders beside its own.

    Raises:
        StoreError: If the file is no artefact at all.
    """
    content = _content(path)
    document = _parsed(path, content)
    signed = check_signature(path, content, [key] if key else own_keys, is_required=key is not None)
    notes = [signed.note] if signed.note else []
    found = [
        *([signed.difference] if signed.difference else []),
        *_checksum_differences(document),
        *_contract_differences(document),
        *_file_differences(document, path.parent),
    ]
    if batch_folder is not None:
        found += _input_differences(document, batch_folder)
    is_vouched_for = signed.signed_by is not None
    unchecked: set[str] = set()
    chain = _Chain(document, path, earlier, db)
    try:
        recomputed = _Recomputed(document, _beside(document, path.parent), chain, _mode(path))
        found += recomputed.differences
        notes += chain.notes
        unchecked |= set(recomputed.unchecked)
        if db is not None:
            store = _Store(document, path, db)
            found += store.differences
            notes += store.notes
            is_vouched_for |= store.has_written_it
            if store.is_compared:
                unchecked = set(_OF_THE_MACHINE)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        found.append(f"it is not built as an artefact is, so the rest was not checked: {error!r}")
    return Verified(tuple(found), tuple(notes), () if is_vouched_for else tuple(sorted(unchecked)))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read as an artefact ({error}): give an assessment_run.*.json."
        raise StoreError(msg) from error


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content, object_pairs_hook=_said_once)
        return {**document, "validation": {**document["validation"]}}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{path} cannot be read as an artefact ({error}): give an assessment_run.*.json."
        raise StoreError(msg) from error


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one that says a thing twice says two things to two readers."""
    found = dict(pairs)
    if len(found) < len(pairs):
        msg = "an object in it has a key twice"
        raise ValueError(msg)
    return found


def _mode(path: Path) -> str | None:
    named = re.fullmatch(r"assessment_run\.(plan|dry-run|execute)\.json", path.name)
    return named[1] if named else None


def _checksum_differences(document: Document) -> Iterator[str]:
    stated = document["validation"].get("artefact_checksum")
    try:
        found = artefact_checksum(document)
    except ValueError:
        found = "none, for it holds numbers that JSON has not"
    if stated != found:
        yield f"artefact_checksum says {stated}, the document gives {found}: it was changed"


def _contract_differences(document: Document) -> Iterator[str]:
    from cj_pipeline.outputs.contracts import CONTRACT, RELAXED_CONTRACT

    name = document["validation"].get("contract")
    if name not in {CONTRACT, RELAXED_CONTRACT}:
        yield f"validation.contract says {name!r}, which is no schema of ours"
        return
    for violation in _some(violations(document, name)):
        yield f"breaks {name} at {violation}"


def _file_differences(document: Document, folder: Path) -> Iterator[str]:
    for entry, file in _listed_files(document, folder):
        if not file.resolve().is_relative_to(folder.resolve()):
            yield f"{entry['path']} lies outside {folder}, so it was not opened"
        elif not file.is_file():
            yield f"{entry['path']} is listed and not in {folder}"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != entry.get("sha256"):
            yield f"{entry['path']} has another checksum than listed: it was changed"
        elif file.stat().st_size != entry.get("bytes"):
            yield f"{entry['path']} has {file.stat().st_size} bytes, not {entry.get('bytes')}"


def _listed_files(document: Document, folder: Path) -> Iterator[tuple[Document, Path]]:
    manifest = document["validation"].get("manifest")
    for entry in manifest if isinstance(manifest, list) else ():
        if isinstance(entry, dict) and entry.get("relative_to") == "this file":
            yield entry, folder / str(entry.get("path"))


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


def _beside(document: Document, folder: Path) -> Beside:
    """Return what the files beside an artefact say; one that was changed says nothing."""
    mode = document["metadata"].get("runner_mode")
    read: dict[str, list[Document]] = {}
    for entry, file in _listed_files(document, folder):
        is_inside = file.resolve().is_relative_to(folder.resolve())
        if is_inside and file.is_file() and entry["path"].endswith(f".{mode}.jsonl"):
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                read[entry["path"]] = [json.loads(line) for line in content.splitlines()]
    if not document["provider_jobs"] and not document["llm_comparisons"]:
        return Beside((), ())
    return Beside(read.get(f"requests.{mode}.jsonl"), read.get(f"callbacks.{mode}.jsonl"))


class _Chain:
    """The batches whose scale a batch is on: from the store, or from their artefacts."""

    def __init__(
        self, document: Document, path: Path, earlier: Sequence[Path], db: Session | None
    ) -> None:
        self._document = document
        self._path = path
        self._db = db
        self._known = {}
        for other in earlier:
            parsed = _parsed(other, _content(other))
            self._known[parsed["metadata"]["batch_id"]] = parsed
        self.notes: list[str] = []

    @property
    def is_linked(self) -> bool:
        """Whether the batch's grades rest on other batches too."""
        return bool((self._document.get("grading") or {}).get("links"))

    def scale(self, own: Scale) -> LinkedScale | None:
        """Return the batch amid the others; None, and a note, where they are not at hand."""
        batch_id = self._document["metadata"]["batch_id"]
        to = self._document["settings"].get("link_to", {}).get("value") or ()
        if self._db is not None:
            try:
                return read_linked_scale(self._db, load_batch(self._db, batch_id), to, own)
            except (UnknownBatchError, UnscalableBatchError) as error:
                self.notes.append(f"The linked batches could not be read in the store: {error}")
                return None
        missing = self._look_for_others()
        if missing:
            self.notes.append(
                f"Grades rest on the verdicts of {', '.join(missing)} too, so they were not"
                " recomputed: give the artefacts of those batches with --earlier."
            )
            return None
        return chain_of(self._document, own, self._known)

    def _look_for_others(self) -> list[str]:
        """Read artefacts in folders beside; return the batches whose artefact is nowhere."""
        while True:
            missing = [
                name
                for name in batches_before(self._document, self._known)
                if name not in self._known
            ]
            found = [
                (name, file)
                for name in missing
                for file in [self._path.parent.parent / name / "assessment_run.execute.json"]
                if re.fullmatch(r"[a-z0-9_-]+", name) and file.is_file()
            ]
            if not found:
                return missing
            for name, file in found:
                self._known[name] = _parsed(file, _content(file))


class _Recomputed:
    """What follows from the artefact's own verdicts and files, against what it states."""

    def __init__(
        self, document: Document, beside: Beside, chain: _Chain, file_mode: str | None
    ) -> None:
        self._document = document
        self._expected: dict[str, Any] = {}
        self.differences: list[str] = []
        self._check("what it consists of", recomputing.what_follows(document, beside, file_mode))
        self._check_rows(beside)
        settings = self._settings()
        self._check("what was decided", refitting.decisions(document, settings))
        scale = None if settings is None else self._check_scores(settings)
        if settings is not None:
            self._check_grades(settings, scale, chain)

    @property
    def unchecked(self) -> Iterator[str]:
        """Yield the fields that nothing was worked out for."""
        for path, _ in leaves(dict(self._document)):
            field = field_of(path)
            if path not in self._expected and not _SHOWS_ELSEWHERE.match(field):
                yield "settings" if field.startswith("settings.") else field

    def _settings(self) -> BatchSettings | None:
        try:
            return settings_of(self._document)
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors()}))
            self.differences.append(
                f"its settings are none this version knows ({wrong}), so scores were not checked"
            )
            return None

    def _check_scores(self, settings: BatchSettings) -> Scale | None:
        document = self._document
        try:
            scale, posterior = refitting.fitted(document, settings)
        except UnscalableBatchError as error:
            if document["bt_summary"]:
                self.differences.append(f"there are scores, and the verdicts give none: {error}")
            return None
        except (KeyError, TypeError, ValueError) as error:
            self.differences.append(f"its verdicts give no scale: {error}")
            return None
        if not document["bt_summary"]:
            return scale
        said = {entry["essay_id"] for entry in document["bt_summary"]}
        self.differences += _some(
            f"{essay_id} has no score" for essay_id in scale.essay_ids if essay_id not in said
        )
        n_before = len(self.differences)
        self._check(
            "scores", refitting.scores(document, settings, scale, posterior), "the verdicts give"
        )
        if len(self.differences) == n_before:
            # Of other verdicts nothing more can be said than that they are others.
            self._check(
                "figures of the scale",
                chained(
                    refitting.description(document, settings),
                    refitting.summaries(document, settings, scale),
                ),
                "the verdicts give",
            )
        return scale

    def _check_grades(self, settings: BatchSettings, scale: Scale | None, chain: _Chain) -> None:
        document = self._document
        amid = chain.scale(scale) if chain.is_linked and scale is not None else None
        if chain.is_linked and amid is None:
            return
        if document["grading"] is not None and document["grading"]["is_graded"]:
            said = {row["essay_id"] for row in document["grade_projections"]}
            self.differences += _some(
                f"{essay_id} has no grade"
                for essay_id in recomputing.essay_ids(document)
                if essay_id not in said
            )
        try:
            self._check(
                "grades", refitting.grades(document, settings, scale, amid), "the anchors give"
            )
        except (SettingsError, UnscalableBatchError) as error:
            self.differences.append(f"there are grades, and no scale they could be on: {error}")

    def _check_rows(self, beside: Beside) -> None:
        """Have every row of the files in the document, and none twice."""
        document = self._document
        rows = [*document["llm_comparisons"], *document["pending_comparisons"]]
        said = [row["comparison_id"] for row in rows]
        asked = {row["comparison_id"] for row in beside.requests or ()}
        self.differences += _some(
            f"comparison {each} was requested and is not in the artefact"
            for each in sorted(asked - set(said))
        )
        for name, ids in (
            ("comparison", said),
            ("score", [row["essay_id"] for row in document["bt_summary"]]),
            ("grade", [row["essay_id"] for row in document["grade_projections"]]),
            ("essay", recomputing.essay_ids(document)),
        ):
            twice = (
                sorted({each for each in ids if ids.count(each) > 1})
                if len(set(ids)) < len(ids)
                else []
            )
            self.differences += [f"{each} has its {name} twice" for each in twice]

    def _check(
        self, what: str, expected: Iterable[tuple[str, Any]], source: str = "the rest gives"
    ) -> None:
        try:
            found = [(at, refitting.as_json(value)) for at, value in expected]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            self.differences.append(f"{what} cannot be worked out of it: {error!r}")
            return
        for at, value in found:
            self._expected |= leaves(value, at)
        self.differences += _some(
            _named(self._document, difference).worded(source)
            for at, value in found
            for difference in differences(value_at(self._document, at), value, _tolerance, at)
        )


class _Store:
    """What a store says of an artefact: whether it wrote that file, and what it has itself."""

    def __init__(self, document: Document, path: Path, db: Session) -> None:
        self.differences: list[str] = []
        self.notes: list[str] = []
        self.has_written_it = False
        self.is_compared = False
        batch_id = document["metadata"]["batch_id"]
        try:
            history = read_history(db, batch_id)
        except UnknownBatchError:
            self.differences.append(f"the store has no batch '{batch_id}'")
            return
        if history.batch["content_sha256"] != document["metadata"]["content_sha256"]:
            self.differences.append(f"batch '{batch_id}' in the store was made from other inputs")
            return
        is_last = self._is_last_written(document, db, batch_id)
        found = list(self._compared(document, path, history))
        if self.has_written_it and not is_last:
            if found:
                self.notes.append(
                    f"The store has gone on since it wrote this file: {len(found)} values are"
                    f" others now, among them {found[0].path}. `cj report {batch_id}` writes the"
                    " report again, and the batch's last artefact is the one in its folder."
                )
            return
        self.differences += _some(
            _named(document, difference).worded("the store") for difference in found
        )

    def _is_last_written(self, document: Document, db: Session, batch_id: str) -> bool:
        """Look whether the store wrote this file; return whether it was the last of its kind."""
        written = db.rows(
            "SELECT artefact_checksum, runner_mode, written_at FROM artefact_records"
            " WHERE batch_id = ? ORDER BY written_at",
            [batch_id],
        )
        mine = [
            row
            for row in written
            if row["artefact_checksum"] == artefact_checksum(document)
            and row["artefact_checksum"] == document["validation"]["artefact_checksum"]
        ]
        self.has_written_it = bool(mine)
        if mine:
            same_mode = [row for row in written if row["runner_mode"] == mine[0]["runner_mode"]]
            when = f"{mine[0]['written_at']:%Y-%m-%d %H:%M}"
            self.notes.append(f"The store wrote exactly this file, on {when}.")
            return bool(same_mode[-1] is mine[0])
        if written:
            self.differences.append(
                f"the store wrote {len(written)} artefacts of batch '{batch_id}', and none of them"
                f" has the checksum {artefact_checksum(document)}: this is not what it wrote"
            )
        else:
            self.notes.append(
                "The store kept no checksum of this batch's artefacts, as an earlier version wrote"
                f" them: `cj report {batch_id}` writes them again."
            )
        return True

    def _compared(
        self, document: Document, path: Path, history: BatchHistory
    ) -> Iterator[Difference]:
        self.is_compared = True
        metadata, machine = document["metadata"], document["validation"]["cli_environment"]
        try:
            generated_at = datetime.fromisoformat(str(metadata["generated_at"]))
        except ValueError:
            generated_at = datetime.fromtimestamp(0, tz=UTC)
        expected = artefact_document(
            history,
            metadata["runner_mode"],
            generated_at=generated_at,
            environment=RunEnvironment(
                git_sha=metadata["git_sha"],
                runner_version=metadata["runner_version"],
                python=machine["python"],
                os=machine["os"],
                pdm=machine["pdm"],
                docker_compose=machine["docker_compose"],
            ),
            written=[
                (entry["role"], WrittenFile(file, entry["sha256"], entry["bytes"]))
                for entry, file in _listed_files(document, path.parent)
            ],
        )
        stated = dict(document)
        for each in (stated, expected):
            each["validation"] = {
                key: value
                for key, value in each["validation"].items()
                if key != "artefact_checksum"
            }
        yield from differences(stated, refitting.as_json(expected))


def value_at(document: Any, path: str) -> Any:
    """Return the value at a path such as `grading.boundaries[2].lower`; `MISSING` without one."""
    value = document
    for name, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            value = value[int(number)] if number else value[name]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return value


def _tolerance(field: str) -> float:
    if field.startswith(("scale_statistics", "wave_decisions")):
        return FIGURE_TOLERANCE
    return PROBABILITY_TOLERANCE if _SAMPLED.match(field) else TOLERANCE


def _named(document: Document, difference: Difference) -> Difference:
    """Return a difference whose row is called by what it is about, beside its number."""
    row = value_at(document, difference.path.partition(".")[0])
    if not isinstance(row, dict):
        return difference
    for key in ("comparison_id", "essay_id", "judge_id"):
        if isinstance(row.get(key), str):
            top, dot, rest = difference.path.partition(".")
            return replace(difference, path=f"{row[key]}, {top}{dot}{rest}")
    return difference


def _some(found: Iterable[str]) -> Iterator[str]:
    """Yield the first differences of one kind and how many more there are."""
    left_out = 0
    for place, difference in enumerate(found):
        if place < _MAX_PER_KIND:
            yield difference
        else:
            left_out += 1
    if left_out:
        yield f"and {left_out} more of this kind"

"""A batch that is handed in becomes a folder in the inbox, whole or not at all.

It is written under a name that begins with a dot, read as ingestion will read it, and renamed when
nothing is wrong with it. Handing in the same content again changes nothing.
"""

from __future__ import annotations

import csv
import io
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.ids import ID, id_for
from cj_pipeline.intake.batch_folder import Batch, read_batch
from cj_pipeline.intake.settings import EarlierBatch
from cj_pipeline.intake.zip_folder import MAX_FILES, ZipProblemsError, unpack
from cj_pipeline.planning.obstacles import batch_obstacles
from cj_pipeline.planning.spending_limits import installation, unallowed_judges
from cj_pipeline.queries.live_profile import profile_of_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import Grant
from cj_pipeline.service.problems import ProblemError
from cj_pipeline.steps.ingest import load_judges

BatchId = Annotated[
    str,
    Field(pattern=ID.pattern, description="A batch's name: 3 to 64 of a-z, 0-9, `-` and `_`."),
]


class EssayIn(BaseModel):
    """A student's essay."""

    model_config = ConfigDict(extra="forbid")

    essay_id: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1)]


class AnchorIn(EssayIn):
    """An essay whose grade is known."""

    grade: Annotated[str, Field(min_length=1, max_length=50)]


class BatchIn(BaseModel):
    """A batch as JSON, or the name of a folder that waits in the inbox.

    With `folder`, the folder `.NAME` of the inbox, copied there under a name that begins with a
    dot, is handed in as it is, and nothing else may be given.
    """

    model_config = ConfigDict(extra="forbid")

    batch_id: BatchId | None = None
    folder: BatchId | None = Field(None, description="A folder `.NAME` in the inbox.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The keys of `batch.yaml`.")
    instructions: str = Field("", description="The students' task.")
    rubric: str = Field("", description="What judges look for.")
    essays: Annotated[list[EssayIn], Field(max_length=MAX_FILES)] = Field(default_factory=list)
    anchors: Annotated[list[AnchorIn], Field(max_length=MAX_FILES)] = Field(default_factory=list)


@dataclass(frozen=True)
class HandedIn:
    """A batch that is in the inbox now, and whether this call put it there."""

    batch: Batch
    judge_names: tuple[str, ...]
    is_new: bool


def hand_in_json(runtime: Runtime, given: BatchIn, grant: Grant) -> HandedIn:
    """Hand in a batch given as JSON, if the caller may submit one of its name.

    Raises:
        ProblemError: With everything that is wrong with it.
    """
    if given.folder is not None:
        if given.model_fields_set - {"folder"}:
            raise ProblemError(422, "Give `folder` alone, or a batch without it.")
        return _hand_in_waiting(runtime, given.folder, grant)
    if given.batch_id is None:
        raise ProblemError(422, "Give the batch a name in `batch_id`, or name a waiting `folder`.")
    with _staged(runtime) as folder:
        _write_batch(folder, given)
        return place(runtime, folder, given.batch_id, grant)


def hand_in_zip(runtime: Runtime, file: IO[bytes], batch_id: str | None, grant: Grant) -> HandedIn:
    """Hand in a batch folder given as a zip file.

    Args:
        runtime: The pipeline's connections.
        file: The zip file; the batch's files, or one folder that holds them.
        batch_id: The batch's name; by default that of the one folder in the zip file.
        grant: What the caller may do.

    Raises:
        ProblemError: With everything that is wrong with it.
    """
    with _staged(runtime) as folder:
        top = _unpack(file, folder)
        name = batch_id or (id_for(top, prefix="batch") if top else None)
        if name is None:
            raise ProblemError(
                422, "Give the batch a name: `?batch_id=`, or one folder of that name in the zip."
            )
        return place(runtime, folder / top if top else folder, name, grant)


def _hand_in_waiting(runtime: Runtime, name: str, grant: Grant) -> HandedIn:
    require_own(name, grant)
    waiting = runtime.inbox / f".{name}"
    if not waiting.is_dir() or waiting.is_symlink():
        for folder in (runtime.inbox / name, runtime.ingested / name):
            if folder.is_dir():
                return _known(runtime, folder, name, grant)
        raise ProblemError(
            404, f"No folder '.{name}' waits in the inbox: copy it there under that name first."
        )
    return place(runtime, waiting, name, grant)


@contextmanager
def _staged(runtime: Runtime) -> Iterator[Path]:
    """Give an empty folder on the inbox's own file system, which is gone afterwards."""
    runtime.inbox.mkdir(parents=True, exist_ok=True)
    folder = runtime.inbox / f".handed-in-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_own(batch_id: str, grant: Grant) -> None:
    """Refuse a batch of a name that the caller's token is not for.

    Raises:
        ProblemError: If it is not.
    """
    if not grant.covers(batch_id):
        raise ProblemError(
            403,
            f"Your token is not for a batch '{batch_id}': name it as one of"
            f" {', '.join(grant.batches)}.",
        )


def place(
    runtime: Runtime,
    folder: Path,
    batch_id: str,
    grant: Grant,
    *,
    content_sha256: str | None = None,
) -> HandedIn:
    """Check a folder as ingestion will, and rename it to where the sensor finds it.

    Args:
        runtime: The pipeline's connections.
        folder: In the inbox, under a name with a dot.
        batch_id: The batch's name.
        grant: What the caller may do.
        content_sha256: What the folder was when the caller saw its plan, where there was one.

    Raises:
        ProblemError: With everything that is wrong with it.
    """
    require_own(batch_id, grant)
    handed_in = read_folder(runtime, folder, batch_id, grant)
    if content_sha256 not in {None, handed_in.batch.content_sha256}:
        raise ProblemError(409, "The folder has changed since its plan: look at the plan again.")
    _refuse_forgotten(runtime, batch_id, handed_in.batch.content_sha256)
    state, sha256 = _in_store(runtime, batch_id)
    target = runtime.inbox / batch_id
    if state is not None and state != "rejected":
        if sha256 != handed_in.batch.content_sha256:
            raise _taken(batch_id)
        return HandedIn(handed_in.batch, handed_in.judge_names, is_new=False)
    _refuse_doomed(runtime, handed_in.batch)
    if state == "rejected" and target.is_dir():
        replaced = runtime.inbox / f".replaced-{secrets.token_hex(8)}"
        target.rename(replaced)
        shutil.rmtree(replaced, ignore_errors=True)
    try:
        folder.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise ProblemError(500, f"The inbox cannot be written: {error.strerror}.") from error
        known = _known(runtime, target, batch_id, grant)
        if known.batch.content_sha256 != handed_in.batch.content_sha256:
            raise _taken(batch_id) from None
        return known
    return handed_in


def _known(runtime: Runtime, folder: Path, batch_id: str, grant: Grant) -> HandedIn:
    found = read_folder(runtime, folder, batch_id, grant)
    return HandedIn(found.batch, found.judge_names, is_new=False)


def read_folder(runtime: Runtime, folder: Path, batch_id: str, grant: Grant) -> HandedIn:
    """Return the batch in a folder that somebody sent, if they may submit it.

    Raises:
        ProblemError: With everything that is wrong with it.
    """
    problems: list[str] = []
    if (folder / "judges").exists():
        # A judge's file sets where requests go and which key they bear.
        problems.append(
            "judges/ cannot be submitted over HTTP: name judges of this installation in `judges`"
        )
    try:
        batch = read_batch(folder, batch_id=batch_id)
        judges = load_judges(batch, runtime.providers_folder) if not problems else ()
        problems += unallowed_judges(judges, installation(runtime))
        # Another batch's scores and grades would show in this one's.
        problems += [
            f"batch.yaml: your token is not for the batch '{name}' that it is to be placed on"
            for name in _other_batches(batch)
            if not grant.covers(name)
        ]
    except BatchProblemsError as error:
        problems = [*problems, *error.problems]
    if problems:
        raise ProblemError(
            422,
            f"Batch '{batch_id}' was not submitted. Fix these and send it again.",
            problems,
        )
    return HandedIn(batch, tuple(judge.name for judge in judges), is_new=True)


def _refuse_doomed(runtime: Runtime, batch: Batch) -> None:
    """A batch that cannot end with scores is refused where it is submitted, unless it says so."""
    if batch.settings.values.anyway:
        return
    try:
        profile = profile_of_batch(batch, runtime.home, runtime.environment)
    except BatchProblemsError as error:
        problems = list(error.problems)
    else:
        judges = load_judges(batch, runtime.providers_folder)
        found = batch_obstacles(runtime, batch, judges, profile.values)
        problems = [f"{each.about}: {each.finding}" for each in found]
    if problems:
        raise ProblemError(
            422,
            f"Batch '{batch.batch_id}' was not submitted: it could not end with scores. Change"
            " the numbers, or set `anyway: true` to start it nevertheless.",
            problems,
        )


def _other_batches(batch: Batch) -> list[str]:
    """Return the batches whose scores a batch would begin with or be placed on."""
    values = batch.settings.values
    earlier = values.head_start if isinstance(values.head_start, EarlierBatch) else None
    return [*values.link_to, *([earlier.batch] if earlier is not None else [])]


def _taken(batch_id: str) -> ProblemError:
    return ProblemError(
        409,
        f"A batch '{batch_id}' with other content is there already; what was requested and paid "
        "for stays as it is, so submit this one under another name.",
    )


def _refuse_forgotten(runtime: Runtime, batch_id: str, content_sha256: str) -> None:
    """What was removed for good does not come back by a program's second try."""
    with runtime.store.read() as db:
        gone = db.one(
            "SELECT batch_id FROM forgotten WHERE essay_alias IS NULL"
            " AND (batch_id = ? OR content_sha256 = ?)",
            [batch_id, content_sha256],
        )
    if gone is not None:
        raise ProblemError(
            409,
            f"Batch '{gone['batch_id']}' was removed for good, and this has its name or its"
            " content: give another name, or take it in with `cj execute --again`.",
        )


def _in_store(runtime: Runtime, batch_id: str) -> tuple[str | None, str | None]:
    with runtime.store.read() as db:
        row = db.one("SELECT state, content_sha256 FROM batches WHERE batch_id = ?", [batch_id])
    return (row["state"], row["content_sha256"]) if row else (None, None)


def _write_batch(folder: Path, given: BatchIn) -> None:
    """Write a batch's files; the same batch gives the same bytes."""
    settings = yaml.safe_dump(given.settings, allow_unicode=True, sort_keys=True)
    _write(folder / "batch.yaml", settings)
    _write(folder / "instructions.md", given.instructions)
    if given.rubric:
        _write(folder / "rubric.md", given.rubric)
    rows = [(essay.essay_id, essay.text) for essay in given.essays]
    _write(folder / "essays.csv", _table(("essay_id", "text"), rows))
    if given.anchors:
        graded = [(anchor.essay_id, anchor.text, anchor.grade) for anchor in given.anchors]
        _write(folder / "anchors.csv", _table(("essay_id", "text", "grade"), graded))


def _write(path: Path, text: str) -> None:
    """JSON can hold half a surrogate pair, which no file in UTF-8 can: ingestion reports it."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _unpack(file: IO[bytes], folder: Path) -> str:
    """Unpack a zip file into a folder; return the one folder that holds everything, or nothing."""
    try:
        return unpack(file, folder)
    except ZipProblemsError as error:
        raise ProblemError(
            413 if error.is_too_large else 422, str(error), list(error.problems)
        ) from None

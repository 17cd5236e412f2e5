"""The API under `/api/v1`: batches handed in, shown, cancelled and fetched."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import tempfile
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.ids import ID
from cj_pipeline.intake.settings import panel_shares
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.progress.events import progress_of
from cj_pipeline.queries.batch_record import rules_of
from cj_pipeline.queries.overview import batch_overview, outputs, what_hinders
from cj_pipeline.queries.release import release_of
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.dependencies import GrantDep, RuntimeDep, needs
from cj_pipeline.service.problems import (
    ProblemError,
    documented,
    said_outside,
    validation_problems,
)
from cj_pipeline.service.schemas import (
    Asked,
    BatchAnswer,
    BatchPage,
    BatchRow,
    Cancelled,
    ComparisonPage,
    ComparisonRow,
    GradePage,
    GradeRow,
    HandedInAnswer,
    Links,
    ScorePage,
    ScoreRow,
)
from cj_pipeline.service.uploads import BatchIn, HandedIn, hand_in_json, hand_in_zip
from cj_pipeline.stopping.continuation import completion_denominator
from cj_pipeline.store.session import Session

BatchName = Annotated[
    str, Path(pattern=ID.pattern, description="A batch's name: 3 to 64 of a-z, 0-9, `-` and `_`.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many items a page has.")]
After = Annotated[
    int, Query(ge=0, le=2**31 - 1, description="`next` of the page before; 0 for the first.")
]

router = APIRouter()
"""Each route says what its caller's token must be for."""

READ, SUBMIT = [needs("read")], [needs("submit")]

_POLICY_IN_PAGE = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"<>\r\n]*)">')

ZIP_TYPES = frozenset({"application/zip", "application/x-zip-compressed"})

_HAND_IN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/BatchIn"}},
            "application/zip": {
                "schema": {"type": "string", "format": "binary", "description": "A batch folder."}
            },
        },
    }
}


def _file_of(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "The file.", "content": {media_type: {}}}}


@router.post(
    "/api/v1/batches",
    status_code=202,
    response_model=HandedInAnswer,
    dependencies=SUBMIT,
    responses=documented(400, 404, 409, 415, 422),
    openapi_extra=_HAND_IN_BODY,
    summary="Hand a batch in",
)
async def hand_in(
    request: Request,
    runtime: RuntimeDep,
    grant: GrantDep,
    batch_id: Annotated[
        str | None,
        Query(pattern=ID.pattern, description="With a zip file: the batch's name."),
    ] = None,
) -> JSONResponse:
    """Put a batch into the inbox, from which Dagster's sensor takes it.

    The body is JSON or a zip file of a batch folder. Everything wrong with it is reported at once.
    The same content handed in again changes nothing and is answered alike.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        if batch_id is not None:
            raise ProblemError(422, "With JSON the batch's name is `batch_id` in the body.")
        handed_in = await run_in_threadpool(
            hand_in_json, runtime, _parsed(await request.body()), grant
        )
    elif kind in ZIP_TYPES:
        with tempfile.TemporaryFile() as file:
            async for part in request.stream():
                file.write(part)
            file.seek(0)
            handed_in = await run_in_threadpool(hand_in_zip, runtime, file, batch_id, grant)
    else:
        raise ProblemError(
            415, "Send JSON (application/json) or a batch folder as application/zip."
        )
    answer = await run_in_threadpool(_handed_in_answer, runtime, handed_in)
    return JSONResponse(
        answer.model_dump(mode="json"), 202, headers={"Location": answer.links.self}
    )


@router.get(
    "/api/v1/batches",
    dependencies=READ,
    responses=documented(404, 422),
    summary="List batches",
)
def list_batches(
    request: Request,
    runtime: RuntimeDep,
    grant: GrantDep,
    limit: Limit = 100,
    after: Annotated[
        str | None,
        Query(pattern=ID.pattern, description="`next` of the page before."),
    ] = None,
) -> BatchPage:
    """Return batches, newest first, and the names that wait in the inbox."""
    with runtime.store.read() as db:
        rows = [row for row in batch_overview(db) if grant.covers(row["batch_id"])]
    names = [row["batch_id"] for row in rows]
    if after is not None and after not in names:
        raise ProblemError(404, f"No batch '{after}' to go on after: begin again without it.")
    start = 0 if after is None else names.index(after) + 1
    page = rows[start : start + limit]
    return BatchPage(
        items=[
            BatchRow(
                **row
                | {
                    "problems": [said_outside(request, p) for p in row["problems"]],
                    "hindered_by": said_outside(request, what_hinders(row)),
                }
            )
            for row in page
        ],
        queued=[] if after else sorted(filter(grant.covers, _queued(runtime) - set(names))),
        next=page[-1]["batch_id"] if len(rows) > start + limit else None,
    )


@router.get(
    "/api/v1/batches/{batch_id}",
    dependencies=READ,
    responses=documented(404, 422),
    summary="Show a batch",
)
def show(request: Request, runtime: RuntimeDep, batch_id: BatchName) -> BatchAnswer:
    """Return a batch's progress at this moment."""
    answer = batch_answer(runtime, batch_id)
    problems = [said_outside(request, problem) for problem in answer.problems]
    return answer.model_copy(update={"problems": problems})


@router.delete(
    "/api/v1/batches/{batch_id}",
    status_code=202,
    dependencies=SUBMIT,
    responses=documented(404, 409, 422),
    summary="Cancel a batch",
)
def end(runtime: RuntimeDep, batch_id: BatchName) -> Cancelled:
    """Request nothing more for a batch, and cancel its provider jobs.

    What they finished is collected; the batch then ends as cancelled.
    """
    return _cancel(runtime, batch_id)


@router.get(
    "/api/v1/batches/{batch_id}/comparisons",
    dependencies=READ,
    responses=documented(404, 422),
    summary="List a batch's comparisons",
)
def comparisons(
    runtime: RuntimeDep, batch_id: BatchName, limit: Limit = 200, after: After = 0
) -> ComparisonPage:
    """Return the comparisons that have ended, in the order requested."""
    with runtime.store.read() as db:
        _require(db, batch_id)
        rows = db.rows(
            "SELECT c.*, j.name AS judge FROM comparisons c JOIN judges j"
            " ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id"
            " WHERE c.batch_id = ? AND c.sequence > ? ORDER BY c.sequence LIMIT ?",
            [batch_id, after, limit + 1],
        )
    items = [ComparisonRow(**row) for row in rows[:limit]]
    return ComparisonPage(items=items, next=items[-1].sequence if len(rows) > limit else None)


@router.get(
    "/api/v1/batches/{batch_id}/scores",
    dependencies=READ,
    responses=documented(404, 422),
    summary="List scores",
)
def scores(
    runtime: RuntimeDep, batch_id: BatchName, limit: Limit = 200, after: After = 0
) -> ScorePage:
    """Return the scores after the latest wave, highest first; none before the first."""
    with runtime.store.read() as db:
        _require(db, batch_id)
        rows = db.rows(
            "SELECT * FROM v_scores WHERE batch_id = ? ORDER BY rank, essay_id LIMIT ? OFFSET ?",
            [batch_id, limit + 1, after],
        )
    items = [ScoreRow(**row) for row in rows[:limit]]
    return ScorePage(items=items, next=after + limit if len(rows) > limit else None)


@router.get(
    "/api/v1/batches/{batch_id}/grades",
    dependencies=READ,
    responses=documented(404, 422),
    summary="List grades",
)
def grades(
    runtime: RuntimeDep, batch_id: BatchName, limit: Limit = 200, after: After = 0
) -> GradePage:
    """Return the students' grades, and why there are or are none."""
    with runtime.store.read() as db:
        _require(db, batch_id)
        grading = db.one(
            "SELECT * FROM grading_reports WHERE batch_id = ? ORDER BY revision DESC LIMIT 1",
            [batch_id],
        )
        release = release_of(db, batch_id)
        rows = db.rows(
            "SELECT g.* EXCLUDE (grade), v.given_grade AS grade, v.machine_grade, v.decision,"
            " p.probabilities FROM v_grades g JOIN grade_projections p"
            " USING (batch_id, revision, essay_id)"
            " JOIN v_given_grades v USING (batch_id, revision, essay_id) WHERE batch_id = ?"
            " ORDER BY rank, essay_id LIMIT ? OFFSET ?",
            [batch_id, limit + 1, after],
        )
    return GradePage(
        is_graded=grading is not None and grading["is_graded"],
        statement=grading["statement"] if grading else "The batch has not been graded yet.",
        provisional=release.is_provisional,
        status=release.status,
        scale=grading["scale"] if grading else None,
        items=[GradeRow(**row) for row in rows[:limit]],
        next=after + limit if len(rows) > limit else None,
    )


@router.get(
    "/api/v1/batches/{batch_id}/report",
    response_class=Response,
    dependencies=READ,
    responses=documented(404, 422) | _file_of("text/html"),
    summary="Fetch a batch's report",
)
def report(runtime: RuntimeDep, batch_id: BatchName) -> Response:
    """Return the report as a page that runs nothing and loads nothing."""
    return _file(runtime, batch_id, "report", "text/html; charset=utf-8")


@router.get(
    "/api/v1/batches/{batch_id}/artefact",
    response_class=Response,
    dependencies=READ,
    responses=documented(404, 422) | _file_of("application/json"),
    summary="Fetch a batch's artefact",
)
def artefact(runtime: RuntimeDep, batch_id: BatchName) -> Response:
    """Return the run's artefact, as its contract describes it."""
    return _file(runtime, batch_id, "artefact", "application/json")


def batch_answer(runtime: Runtime, batch_id: str) -> BatchAnswer:
    """Return a batch's status, one that waits in the inbox included.

    Raises:
        UnknownBatchError: If there is none of that name.
    """
    try:
        with runtime.store.read() as db:
            (row,) = batch_overview(db, batch_id)
            files = outputs(db, batch_id)
            release = release_of(db, batch_id)
            is_rejected = row["state"] == "rejected"
            progress = None if is_rejected else progress_of(db, batch_id, runtime.clock())
    except UnknownBatchError:
        if batch_id not in _queued(runtime):
            raise
        return BatchAnswer(
            batch_id=batch_id,
            title=batch_id,
            state="queued",
            problems=[],
            progress=None,
            has_report=False,
            has_artefact=False,
            release="no grades",
            links=links(batch_id),
        )
    return BatchAnswer(
        batch_id=batch_id,
        title=row["title"],
        state=row["state"],
        problems=row["problems"],
        progress=progress,
        has_report="report" in files,
        has_artefact="artefact" in files,
        release=release.status,
        links=links(batch_id),
    )


def links(batch_id: str) -> Links:
    """Return where the rest of a batch is."""
    base = f"/api/v1/batches/{batch_id}"
    return Links(self=base, events=f"{base}/events", page=f"/batches/{batch_id}")


def _parsed(body: bytes) -> BatchIn:
    try:
        return BatchIn.model_validate(json.loads(body))
    except ValidationError as error:
        raise ProblemError(
            422, "The body is not as the API describes it.", validation_problems(error.errors())
        ) from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"The body is not JSON: {error}") from None


def _handed_in_answer(runtime: Runtime, handed_in: HandedIn) -> HandedInAnswer:
    batch, settings = handed_in.batch, handed_in.batch.settings.values
    with runtime.store.read() as db:
        row = db.one("SELECT state FROM batches WHERE batch_id = ?", [batch.batch_id])
    is_waiting = row is None or row["state"] == "rejected"
    return HandedInAnswer(
        batch_id=batch.batch_id,
        is_new=handed_in.is_new,
        state="queued" if row is None or is_waiting else row["state"],
        asked=Asked(
            n_essays=len(batch.essays),
            n_anchors=len(batch.anchors),
            judges=list(handed_in.judge_names),
            batching_mode=settings.batching_mode,
            max_comparisons=completion_denominator(
                len(batch.essays),
                rules_of(
                    settings,
                    verdicts_per_pair=math.fsum(panel_shares(settings, handed_in.judge_names)),
                ),
            ),
            spend_cap_usd=settings.spend_cap_usd,
        ),
        links=links(batch.batch_id),
    )


def _queued(runtime: Runtime) -> set[str]:
    """Return the names of the folders in the inbox; those with a dot are still being written."""
    if not runtime.inbox.is_dir():
        return set()
    return {path.name for path in runtime.inbox.iterdir() if ID.fullmatch(path.name)}


def _cancel(runtime: Runtime, batch_id: str) -> Cancelled:
    withdrawn = _withdraw(runtime, batch_id)
    try:
        with runtime.store.read() as db:
            (row,) = batch_overview(db, batch_id)
    except UnknownBatchError:
        if withdrawn:
            return Cancelled(batch_id=batch_id, state="withdrawn", n_jobs=0)
        raise
    if row["state"] == "cancelled":
        return Cancelled(batch_id=batch_id, state="cancelled", n_jobs=0)
    if row["state"] != "running":
        reason = f" ({row['end_reason']})" if row["end_reason"] else ""
        raise ProblemError(
            409, f"Batch '{batch_id}' is {row['state']}{reason}: there is nothing to cancel."
        )
    cancelled = cancel(runtime, batch_id)
    return Cancelled(batch_id=batch_id, state="cancelling", n_jobs=cancelled.n_jobs)


def _withdraw(runtime: Runtime, batch_id: str) -> bool:
    """Take a folder that is not in the store back from the inbox; True where there was one."""
    if batch_id not in _queued(runtime):
        return False
    with runtime.store.read() as db:
        if db.one("SELECT 1 AS known FROM batches WHERE batch_id = ?", [batch_id]):
            return False
    gone = runtime.inbox / f".withdrawn-{batch_id}"
    try:
        (runtime.inbox / batch_id).rename(gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _require(db: Session, batch_id: str) -> None:
    batch_overview(db, batch_id)


def _file(runtime: Runtime, batch_id: str, kind: str, media_type: str) -> Response:
    with runtime.store.read() as db:
        _require(db, batch_id)
        found = outputs(db, batch_id).get(kind)
    # The path comes from the store, which other machines may write: nothing else is ever sent.
    content = runtime.published.read(found.path, found.sha256) if found else None
    if content is None:
        raise ProblemError(404, f"Batch '{batch_id}' has no {kind} here yet.")
    headers = {"Content-Security-Policy": _policy_of(content)} if kind == "report" else {}
    return Response(content, media_type=media_type, headers=headers)


def _policy_of(page: bytes) -> str:
    """Return the policy a report brings in its own head, which is also sent before it."""
    found = _POLICY_IN_PAGE.search(page[:8192].decode(errors="replace"))
    own = html.unescape(found[1]) if found else "default-src 'none'; img-src data:"
    return f"{own}; frame-ancestors 'none'"

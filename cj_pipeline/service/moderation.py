"""Moderation and release over HTTP, and the page for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from cj_pipeline.errors import SettingsError, UnscalableBatchError
from cj_pipeline.outputs.essay_pair import essay_pair, render_essay_pair
from cj_pipeline.outputs.html import page_policy
from cj_pipeline.outputs.readings.reading_queue import moderation_queue
from cj_pipeline.people.moderation import (
    MAX_REASON,
    Decision,
    decide_grades,
    release_grades,
    withdraw_release,
)
from cj_pipeline.queries.history import BatchHistory, read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.api import BatchName
from cj_pipeline.service.dependencies import RuntimeDep, needs
from cj_pipeline.service.live_page import page_of
from cj_pipeline.service.problems import ProblemError, documented
from cj_pipeline.steps.publish import publish
from cj_pipeline.text import visible

router = APIRouter(tags=["moderation"])
pages = APIRouter(include_in_schema=False)

Name = Annotated[str, Field(min_length=1, max_length=80, description="Who does this.")]
_CALLED = "An essay's id, or the name it was submitted under."
EssayName = Annotated[str, Path(min_length=1, max_length=200, description=_CALLED)]
Reason = Annotated[str, Field(max_length=MAX_REASON)]


class ReleaseStatus(BaseModel):
    """Whether a batch's grades may be used."""

    status: str = Field(
        description="no grades, final, provisional, released, changed since release or withdrawn"
    )
    is_provisional: bool
    needs_sign_off: bool
    revision: int | None = Field(description="The last grading.")
    released_revision: int | None
    released_by: str | None
    released_at: str | None


class QueueAnswer(BaseModel):
    """What a person should look at, what a look gains most by first."""

    release: ReleaseStatus
    statement: str
    grades: list[str] = Field(description="That may be given.")
    items: list[dict[str, Any]]


class EssayAnswer(BaseModel):
    """An essay beside the anchors next to it."""

    essay_id: str
    text: str
    neighbours: list[dict[str, str]]


class DecisionIn(BaseModel):
    """What a person decides of one essay."""

    model_config = ConfigDict(extra="forbid")

    essay_id: Annotated[str, Field(min_length=1, max_length=200, description=_CALLED)]
    decision: Literal["accept", "override", "judge", "exclude"]
    by: Name
    reason: Reason = Field(default="", description="Needed unless a grade is accepted.")
    grade: str | None = Field(default=None, max_length=40, description="Of an override.")


class ReleaseIn(BaseModel):
    """Who releases, or withdraws a release."""

    model_config = ConfigDict(extra="forbid")

    by: Name
    note: Reason = Field(default="", description="Needed to withdraw.")
    withdraw: bool = False


@router.get(
    "/api/v1/batches/{batch_id}/moderation",
    dependencies=[needs("read")],
    responses=documented(404, 422),
    summary="List what a person should look at",
)
def queue(runtime: RuntimeDep, batch_id: BatchName) -> QueueAnswer:
    """Return the moderation queue, and whether the grades are released."""
    return _queue(_history(runtime, batch_id))


@router.get(
    "/api/v1/batches/{batch_id}/moderation/{essay_id}",
    dependencies=[needs("read")],
    responses=documented(404, 422),
    summary="Show an essay beside its neighbouring anchors",
)
def essay(runtime: RuntimeDep, batch_id: BatchName, essay_id: EssayName) -> EssayAnswer:
    """Return the texts that a person reads to decide."""
    history = _history(runtime, batch_id)
    essay_id = history.essay_known(essay_id)
    found = [entry for entry in moderation_queue(history) if entry.essay_id == essay_id]
    return EssayAnswer(
        essay_id=essay_id,
        text=visible(history.essay_by_id[essay_id]["text"]),
        neighbours=[
            {
                "essay_id": anchor,
                "grade": grade,
                "text": visible(history.essay_by_id[anchor]["text"]),
            }
            for entry in found
            for anchor, grade in entry.neighbours
        ],
    )


@router.post(
    "/api/v1/batches/{batch_id}/moderation",
    dependencies=[needs("release")],
    responses=documented(400, 404, 409, 422),
    summary="Decide a grade",
)
def decide(runtime: RuntimeDep, batch_id: BatchName, given: DecisionIn) -> QueueAnswer:
    """Store what a person decided; the machine's grade stays beside it."""
    decision = Decision(given.essay_id, given.decision, given.by, given.reason, given.grade)
    with _conflicts():
        decide_grades(runtime, batch_id, [decision])
    return _queue(_history(runtime, batch_id))


@router.post(
    "/api/v1/batches/{batch_id}/release",
    dependencies=[needs("release")],
    responses=documented(400, 404, 409, 422),
    summary="Release grades, or withdraw their release",
)
def release(runtime: RuntimeDep, batch_id: BatchName, given: ReleaseIn) -> ReleaseStatus:
    """Release the last grading by name, and write its files as final ones."""
    with _conflicts():
        if given.withdraw:
            done = withdraw_release(runtime, batch_id, by=given.by, note=given.note)
        else:
            entries = moderation_queue(_history(runtime, batch_id))
            done = release_grades(
                runtime,
                batch_id,
                by=given.by,
                note=given.note,
                queue=[entry.essay_id for entry in entries],
            )
    if done.is_new:
        publish(runtime, batch_id)
    return ReleaseStatus(**done.release.as_json())


@pages.get("/moderation/{batch_id}", response_class=HTMLResponse)
def moderation_page() -> HTMLResponse:
    """Return the page's frame; it fetches what it shows, with the reader's own access."""
    content, policy = page_of("moderation_page")
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


@pages.get(
    "/batches/{batch_id}/essays/{essay_id}/beside/{other_id}",
    response_class=HTMLResponse,
    dependencies=[needs("read")],
)
def beside(
    runtime: RuntimeDep, batch_id: BatchName, essay_id: EssayName, other_id: EssayName
) -> HTMLResponse:
    """Return two essays beside each other, with every verdict on the two."""
    history = _history(runtime, batch_id)
    try:
        pair = essay_pair(history, history.essay_known(essay_id), history.essay_known(other_id))
    except UnscalableBatchError as error:
        raise ProblemError(409, str(error)) from None
    policy = f"{page_policy()}; frame-ancestors 'none'"
    return HTMLResponse(
        render_essay_pair(history, pair), headers={"Content-Security-Policy": policy}
    )


@contextmanager
def _conflicts() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise ProblemError(409, str(error)) from None


def _history(runtime: Runtime, batch_id: str) -> BatchHistory:
    with runtime.store.read() as db:
        return read_history(db, batch_id)


def _queue(history: BatchHistory) -> QueueAnswer:
    definition = history.grading["scale_definition"] if history.grading else None
    below = [definition["below"]] if definition and definition.get("below") else []
    grades = [*below, *(definition["grades"] if definition else [])]
    return QueueAnswer(
        release=ReleaseStatus(**history.release.as_json()),
        statement=history.release.statement,
        grades=grades,
        items=[entry.as_json() for entry in moderation_queue(history)],
    )

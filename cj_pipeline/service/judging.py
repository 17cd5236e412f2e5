"""The judging page: one file, and the few answers it needs, for whoever holds a personal link.

A link's token is in the address's fragment, which no server sees; the page trades it for a cookie
at once. What is answered here holds two texts and nothing that tells whose they are: no name, no
grade, no file, no verdict of anyone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from cj_pipeline.errors import SettingsError
from cj_pipeline.people.assignments import (
    AHEAD,
    MAX_COMMENT,
    Answer,
    Assignment,
    Desk,
    SkipReason,
    changeable,
    desk_of,
    peek,
    store_answer,
)
from cj_pipeline.people.links import JudgeLink, link_of
from cj_pipeline.queries.batch_record import BatchRecord, load_batch
from cj_pipeline.queries.people import people_progress
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.dependencies import RuntimeDep
from cj_pipeline.service.live_page import page_of
from cj_pipeline.service.problems import ProblemError
from cj_pipeline.store.session import Session
from cj_pipeline.text import visible

JUDGE_COOKIE = "cj_judge"
_NOT_GOOD = (
    "This link is not good: it has expired, was revoked, or is not complete. Request a new"
    " one from the person who sent it."
)

router = APIRouter(include_in_schema=False)


class TokenIn(BaseModel):
    """A personal link's token."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=200)]


class AnswerIn(BaseModel):
    """A verdict, or a skip with its reason."""

    model_config = ConfigDict(extra="forbid")

    pair: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    winner: Literal["first", "second", "tie"] | None = None
    skip: SkipReason | None = None
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] = ""
    active_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    elapsed_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    change: bool = False


@router.get("/judge", response_class=HTMLResponse)
def judging_page() -> HTMLResponse:
    """Return the page's frame; it fetches what it shows with the link's own right."""
    content, policy = page_of("judging_page")
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


@router.post("/judge/session", status_code=204)
def open_session(given: TokenIn, request: Request, runtime: RuntimeDep) -> Response:
    """Trade a link's token for a cookie that lasts as long as the link."""
    now = runtime.clock()
    with runtime.store.read() as db:
        link = link_of(db, given.token, now)
    if link is None:
        raise ProblemError(401, _NOT_GOOD)
    response = Response(status_code=204)
    response.set_cookie(
        JUDGE_COOKIE,
        given.token,
        max_age=int((link.expires_at - now).total_seconds()),
        path="/judge",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.get("/judge/desk")
def desk(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """Return what the person is to judge now, and what the page says around it."""
    now = runtime.clock()
    with runtime.store.read() as db:
        link = _require_link(db, request, runtime)
        found = peek(db, link)
        if len(found.held) >= AHEAD:
            return _desk_answer(db, load_batch(db, link.batch_id), link, found)
    with runtime.store.write() as db:
        record = load_batch(db, link.batch_id)
        return _desk_answer(db, record, link, desk_of(db, record, link, now))


@router.post("/judge/answers")
def answer(given: AnswerIn, request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """Store a verdict or a skip, and return the next pair; sent twice it counts once."""
    if (given.winner is None) == (given.skip is None):
        raise ProblemError(422, "Give either a winner or a reason to skip.")
    winner: dict[str | None, Literal["A", "B", "tie"] | None] = {
        "first": "A",
        "second": "B",
        "tie": "tie",
        None: None,
    }
    now = runtime.clock()
    with runtime.store.write() as db:
        link = _require_link(db, request, runtime)
        record = load_batch(db, link.batch_id)
        try:
            store_answer(
                db,
                record,
                link,
                Answer(
                    given.pair,
                    winner[given.winner],
                    given.skip,
                    given.comment,
                    given.active_s,
                    given.elapsed_s,
                    given.change,
                ),
                now,
            )
        except SettingsError as error:
            raise ProblemError(409, str(error)) from None
        found = desk_of(db, record, link, now)
        return _desk_answer(db, record, link, found, with_words=False)


@router.get("/judge/previous")
def previous(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """Return the pair whose verdict may still be changed."""
    with runtime.store.read() as db:
        link = _require_link(db, request, runtime)
        assignment = changeable(db, link)
        if assignment is None:
            raise ProblemError(409, "There is no verdict to go back to.")
        return {"pair": _pair(db, link.batch_id, assignment)}


def _require_link(db: Session, request: Request, runtime: Runtime) -> JudgeLink:
    token = request.cookies.get(JUDGE_COOKIE, "")
    link = link_of(db, token, runtime.clock()) if token else None
    if link is None:
        raise ProblemError(401, _NOT_GOOD)
    return link


def _desk_answer(
    db: Session, record: BatchRecord, link: JudgeLink, found: Desk, *, with_words: bool = True
) -> dict[str, Any]:
    pairs = [_pair(db, record.batch_id, each) for each in found.held[:AHEAD]]
    progress = people_progress(db, record)
    return {
        "pair": pairs[0] if pairs else None,
        "next": pairs[1] if len(pairs) > 1 else None,
        "n_done": found.n_done,
        "n_left": found.n_left,
        "minutes_left": found.n_left * progress.seconds_per_verdict / 60,
        "why_nothing": found.why_nothing,
        "may_go_back": found.may_go_back,
        "allow_ties": record.judge(link.judge_id).allow_ties,
        **(_words(db, record, link) if with_words else {}),
    }


def _words(db: Session, record: BatchRecord, link: JudgeLink) -> dict[str, Any]:
    documents = {
        row["kind"]: visible(row["content"])
        for row in db.rows(
            "SELECT kind, content FROM documents WHERE batch_id = ?"
            " AND kind IN ('instructions', 'rubric')",
            [record.batch_id],
        )
    }
    return {
        "person": link.person,
        "language": record.settings.language,
        "instructions": documents.get("instructions", ""),
        "rubric": documents.get("rubric", ""),
    }


def _pair(db: Session, batch_id: str, assignment: Assignment) -> dict[str, str]:
    rows = db.rows(
        "SELECT essay_id, coalesce(masked_text, text) AS text FROM essays"
        " WHERE batch_id = ? AND essay_id IN (?, ?)",
        [batch_id, assignment.essay_a, assignment.essay_b],
    )
    texts = {row["essay_id"]: visible(row["text"]) for row in rows}
    return {
        "id": assignment.assignment_id,
        "first": texts[assignment.essay_a],
        "second": texts[assignment.essay_b],
    }

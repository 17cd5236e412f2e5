"""Errors as problem details (RFC 9457), each with everything that is wrong at once."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from cj_pipeline.errors import (
    BatchProblemsError,
    CJError,
    TransientError,
    UnknownBatchError,
    UnknownEssayError,
)
from cj_pipeline.text import without_folders

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong, and what to do next."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("about:blank", description="Always about:blank: the status says the kind.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What happened, to which batch, and what to do next.")
    problems: list[str] = Field(
        default_factory=list, description="Everything that is wrong, where there are several."
    )


class ProblemError(Exception):
    """A request that cannot be answered."""

    def __init__(
        self,
        status: int,
        detail: str,
        problems: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


def problem_response(
    status: int,
    detail: str,
    problems: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem as it goes out."""
    content = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        problems=list(problems),
    )
    return JSONResponse(
        content.model_dump(), status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return an operation's problems for the OpenAPI document."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, 401, 403, 413, 500, 503})
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Have every error of the application leave as a problem."""
    app.exception_handler(ProblemError)(_known)
    app.exception_handler(HTTPException)(_of_the_protocol)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(CJError)(_of_the_pipeline)
    app.exception_handler(Exception)(_unforeseen)


async def _known(request: Request, error: ProblemError) -> JSONResponse:
    problems = [said_outside(request, problem) for problem in error.problems]
    return problem_response(
        error.status, said_outside(request, error.detail), problems, error.headers
    )


def said_outside(connection: HTTPConnection, text: str) -> str:
    """Return a text as callers may read it: it names no folder of the machine that serves."""
    runtime = connection.app.state.runtime
    package = Path(__file__).parents[2]
    own = (runtime.home, runtime.inbox, runtime.published_folder)
    return without_folders(
        text, (*own, Path(tempfile.gettempdir()), Path.home(), Path(sys.prefix), package)
    )


async def _of_the_protocol(_: Request, error: HTTPException) -> JSONResponse:
    return problem_response(error.status_code, str(error.detail), headers=error.headers)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    return problem_response(
        422, "The request is not as the API describes it.", validation_problems(error.errors())
    )


async def _of_the_pipeline(request: Request, error: CJError) -> JSONResponse:
    detail = said_outside(request, str(error))
    if isinstance(error, (UnknownBatchError, UnknownEssayError)):
        return problem_response(404, detail)
    if isinstance(error, BatchProblemsError):
        problems = [said_outside(request, problem) for problem in error.problems]
        return problem_response(422, detail.partition("\n")[0], problems)
    if isinstance(error, TransientError):
        return problem_response(503, detail, headers={"Retry-After": "5"})
    log.error("request_failed", error=str(error))
    return problem_response(500, detail)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.error("request_crashed", method=request.method, kind=type(error).__name__)
    return problem_response(500, "Something unforeseen went wrong; the service's log says what.")


def refuse_unknown_query(connection: HTTPConnection) -> None:
    """Refuse what an operation does not know: a misspelt `limit` would be left out in silence.

    Raises:
        ProblemError: With every name that is not known.
    """
    route = connection.scope.get("route")
    if not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    known = sorted(each.alias for each in route.dependant.query_params)
    unknown = sorted(set(connection.query_params) - set(known))
    if unknown:
        known_here = f"known here: {', '.join(known)}" if known else "none is known here"
        raise ProblemError(
            422,
            "The request is not as the API describes it.",
            [f"query: unknown key {name[:100]!r}; {known_here}" for name in unknown],
        )


def validation_problems(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return pydantic's findings as sentences; what was given is not repeated."""
    return [
        f"{'.'.join(str(part) for part in error['loc']) or 'body'}: {error['msg']}"
        for error in errors
    ]

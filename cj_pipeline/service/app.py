"""The application: the API, the live page, WebSockets, metrics, and who may reach them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.ids import ID
from cj_pipeline.installation import read_installation
from cj_pipeline.metrics.readings import CONTENT_TYPE as METRICS_TYPE
from cj_pipeline.metrics.readings import scraped_metrics
from cj_pipeline.runtime import Runtime
from cj_pipeline.service import api, judging, moderation, start_form, webhooks
from cj_pipeline.service.api import batch_answer
from cj_pipeline.service.auth import COOKIE, SESSION_S, Access, AccessMiddleware, cookie_of
from cj_pipeline.service.dependencies import (
    AccessDep,
    FeedDep,
    RuntimeDep,
    install,
    needs,
    refuse_undeclared,
    require,
)
from cj_pipeline.service.live_page import live_page
from cj_pipeline.service.problems import (
    Problem,
    ProblemError,
    add_problem_handlers,
    documented,
    refuse_unknown_query,
)
from cj_pipeline.service.schemas import Healthy
from cj_pipeline.service.subscriptions import ProgressFeed, Update
from cj_pipeline.service.uploads import BatchIn
from cj_pipeline.service.write_queue import WriteQueue

SIGNED_OUT = 4401
NOT_FOR_THIS = 4403
NO_SUCH_BATCH = 4404
REJECTED = 4422
"""Codes a WebSocket is closed with; 4000 and up are an application's own."""

protected = APIRouter()
"""What needs the token by the API's document, besides the API; `AccessMiddleware` requires it."""

others = APIRouter()
"""What does not need it, and what the document leaves out: the page, and the events of a batch."""

_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
}


class SignIn(BaseModel):
    """A token, to be traded for a session."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=1000)]


def create_app(runtime: Runtime, access: Access) -> FastAPI:
    """Return the service over a runtime's store and inbox.

    Args:
        runtime: The pipeline's connections.
        access: Who may call it, and how much they may send.
    """
    feed = ProgressFeed(runtime)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(feed.poll_store())
        yield
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling

    app = FastAPI(
        title="cj_pipeline",
        summary="Comparative judgement of essays by LLM judges.",
        version=version("cj-pipeline"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(refuse_undeclared), Depends(refuse_unknown_query)],
    )
    install(app, runtime, feed, access)
    app.state.answers = WriteQueue(runtime.store)
    add_problem_handlers(app)
    description = "CJ_SERVE_TOKEN, or a token of `cj token create` with the scope"
    bearer = [Depends(HTTPBearer(auto_error=False, description=description))]
    for router in (api.router, moderation.router, protected):
        app.include_router(router, dependencies=bearer if access.is_guarded else [])
    for router in (others, webhooks.router, judging.router, moderation.pages, start_form.router):
        app.include_router(router)
    _describe(app)
    app.add_middleware(AccessMiddleware, access=access)
    app.add_middleware(_SafeHeaders)
    return app


@protected.get(
    "/metrics",
    response_class=Response,
    dependencies=[needs("read", all_batches=True)],
    responses=documented(422) | {200: {"content": {"text/plain": {}}}},
    tags=["operation"],
    summary="Metrics for Prometheus",
)
def metrics(runtime: RuntimeDep) -> Response:
    """Return every metric, counted from the store's rows."""
    return Response(
        scraped_metrics(
            runtime.store, read_installation(runtime.home, runtime.environment).ceilings
        ),
        media_type=METRICS_TYPE,
    )


@others.get("/healthz", responses=documented(422), tags=["operation"], summary="Is it up?")
def healthz(runtime: RuntimeDep) -> Healthy:
    """Answer once the store has been read; 503 while it cannot be."""
    with runtime.store.read() as db:
        db.one("SELECT 1 AS one")
    return Healthy(status="ok")


@others.post(
    "/session",
    status_code=204,
    responses=documented(400, 422),
    tags=["operation"],
    summary="Sign a browser in",
)
def sign_in(given: SignIn, request: Request, access: AccessDep) -> Response:
    """Trade the token for a cookie that lasts half a day and does not hold the token."""
    if not access.is_guarded:
        return Response(status_code=204)
    session = access.begin_session(given.token)
    if session is None:
        raise ProblemError(401, "That token is not known here, or it has expired.")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@others.delete(
    "/session",
    status_code=204,
    responses=documented(422),
    tags=["operation"],
    summary="Sign a browser out",
)
def sign_out(request: Request, access: AccessDep) -> Response:
    """End the session, wherever its cookie has been copied to, and forget the cookie."""
    access.end_session(cookie_of(request.headers))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


@others.get("/", response_class=HTMLResponse, include_in_schema=False)
@others.get("/batches/{batch_id}", response_class=HTMLResponse, include_in_schema=False)
def page() -> HTMLResponse:
    """Return the live page's frame; it fetches what it shows, with the reader's own access."""
    content, policy = live_page()
    return HTMLResponse(content, headers={"Content-Security-Policy": policy})


@others.websocket("/api/v1/batches/{batch_id}/events")
async def events(
    socket: WebSocket, runtime: RuntimeDep, feed: FeedDep, access: AccessDep, batch_id: str
) -> None:
    """Send a batch's events and progress as they change, and close when it has ended.

    `?after=N` leaves out the events up to that number, for a client that reconnects.
    """
    await socket.accept()
    after = socket.query_params.get("after", "0")
    try:
        require(socket.state.grant, "read", batch_id)
    except ProblemError as error:
        await socket.close(NOT_FOR_THIS, error.detail)
        return
    except UnknownBatchError:
        await socket.close(NO_SUCH_BATCH, "There is no such batch.")
        return
    if not ID.fullmatch(batch_id) or not after.isascii() or not after.isdecimal():
        await socket.close(NO_SUCH_BATCH, "No batch can have that name, or `after` no number.")
        return
    updates = feed.watch(batch_id, int(after[:9]))
    sending = asyncio.create_task(_send_updates(socket, runtime, access, batch_id, updates))
    receiving = asyncio.create_task(_until_gone(socket))
    done, pending = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in (*done, *pending):
        # A client that has gone away gets nothing more.
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
            await task


async def _until_gone(socket: WebSocket) -> None:
    """Read, so that a closed connection is noticed; what a client sends is ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _send_updates(
    socket: WebSocket,
    runtime: Runtime,
    access: Access,
    batch_id: str,
    updates: AsyncGenerator[Update],
) -> None:
    sent: dict[str, Any] | None = None
    async with aclosing(updates):
        async for update in updates:
            if access.grant(socket.headers) is None:
                await socket.close(SIGNED_OUT, "Signed out, or the token has ended.")
                return
            if update.progress is None:
                if not await _is_queued(runtime, batch_id):
                    await socket.close(NO_SUCH_BATCH, "There is no such batch.")
                    return
                if sent is None:
                    sent = {}
                    await _send(socket, {"type": "queued", "batch_id": batch_id})
                continue
            for event in update.events:
                await _send(socket, {"type": "event", **event.as_json()})
            now = update.progress.as_json()
            if sent is None or _changed(sent, now):
                await _send(socket, {"type": "progress", "progress": now})
                sent = now
            if update.progress.state != "running":
                await _close(socket, update)
                return


async def _close(socket: WebSocket, update: Update) -> None:
    rejected = update.progress is not None and update.progress.state == "rejected"
    await socket.close(REJECTED if rejected else 1000, "rejected" if rejected else "ended")


def _changed(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether anything but the passing of time makes two states of progress differ."""
    of_time = ("at", "eta", "comparisons_per_s")
    return any(before.get(key) != value for key, value in now.items() if key not in of_time)


async def _is_queued(runtime: Runtime, batch_id: str) -> bool:
    try:
        await asyncio.to_thread(batch_answer, runtime, batch_id)
    except UnknownBatchError:
        return False
    return True


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_text(json.dumps(message, ensure_ascii=False, allow_nan=False))


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document what its operations only refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            _, models = models_json_schema(
                [(BatchIn, "validation"), (Problem, "serialization")],
                ref_template="#/components/schemas/{model}",
            )
            found.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
            for path in found["paths"].values():
                for operation in path.values():
                    _with_problems(operation)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problems(operation: dict[str, Any]) -> None:
    """FastAPI documents its own kind of error; the service answers with problems."""
    if "422" in operation["responses"]:
        operation["responses"]["422"] = documented(422)[422]


class _SafeHeaders:
    """Sets the headers that every answer bears, unless it brings its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)

"""What a request is answered from: its application's runtime, progress feed and access rules.

And what it needs to be answered at all: `needs("read")` among a route's or a router's dependencies.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, FastAPI
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from cj_pipeline.errors import UnknownBatchError
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import Access, Grant, is_open_path
from cj_pipeline.service.problems import ProblemError
from cj_pipeline.service.subscriptions import ProgressFeed


def install(app: FastAPI, runtime: Runtime, feed: ProgressFeed, access: Access) -> None:
    """Have an application's operations find these."""
    app.state.runtime, app.state.feed, app.state.access = runtime, feed, access


# Asynchronous, though nothing is waited for: FastAPI sends what is not to another thread.
async def _runtime(connection: HTTPConnection) -> Runtime:
    found: Runtime = connection.app.state.runtime
    return found


async def _feed(connection: HTTPConnection) -> ProgressFeed:
    found: ProgressFeed = connection.app.state.feed
    return found


async def _access(connection: HTTPConnection) -> Access:
    found: Access = connection.app.state.access
    return found


async def _grant(connection: HTTPConnection) -> Grant:
    found: Grant = connection.state.grant
    return found


def needs(
    scope: Literal["submit", "read", "judge", "release", "admin"], *, all_batches: bool = False
) -> Dependency:
    """Return what a route depends on to be answered to those with a scope only.

    Where its path names a batch, the caller's token must be for that batch: another is answered
    like one that does not exist.

    Args:
        scope: One of `tokens.SCOPES`.
        all_batches: Whether only a token for every batch will do, since all are shown at once.
    """

    async def check(connection: HTTPConnection) -> None:
        require(await _grant(connection), scope, connection.path_params.get("batch_id"))
        if all_batches and not connection.state.grant.covers_all:
            raise ProblemError(403, "This shows all batches, and your token is for some of them.")

    check.__name__ = f"needs_{scope}"
    found: Dependency = Depends(check)
    return found


async def refuse_undeclared(connection: HTTPConnection) -> None:
    """Answer what declares no scope to `admin` alone: forgetting one must open nothing.

    Raises:
        ProblemError: If the caller's token is for less.
    """
    route = connection.scope.get("route")
    if not isinstance(route, APIRoute) or is_open_path(connection.scope["path"]):
        return
    declared = (getattr(each.call, "__name__", "") for each in route.dependant.dependencies)
    if not any(name.startswith("needs_") for name in declared):
        require(await _grant(connection), "admin")


def require(grant: Grant | None, scope: str, batch_id: str | None = None) -> None:
    """Refuse what a token is not for, and whoever has none.

    Raises:
        ProblemError: If there is none, or it lacks the scope.
        UnknownBatchError: If the batch is not among its own.
    """
    if grant is None:
        raise ProblemError(401, "Send a token that is known here, or sign in on the first page.")
    if not grant.allows(scope):
        raise ProblemError(403, f"Your token is not for this: it needs the scope `{scope}`.")
    if batch_id is not None and not grant.covers(batch_id):
        msg = f"No batch '{batch_id}' is in the store."
        raise UnknownBatchError(msg)


GrantDep = Annotated[Grant, Depends(_grant)]
RuntimeDep = Annotated[Runtime, Depends(_runtime)]
FeedDep = Annotated[ProgressFeed, Depends(_feed)]
AccessDep = Annotated[Access, Depends(_access)]

"""What a request is answered from: its application's runtime, progress feed and access rules."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import Access
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


RuntimeDep = Annotated[Runtime, Depends(_runtime)]
FeedDep = Annotated[ProgressFeed, Depends(_feed)]
AccessDep = Annotated[Access, Depends(_access)]

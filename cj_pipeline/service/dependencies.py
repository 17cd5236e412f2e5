"""What a request is answered from: its application's engine and board, and who may ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import Access
from cj_pipeline.service.subscriptions import ProgressFeed


def install(app: FastAPI, runtime: Runtime, board: ProgressFeed, access: Access) -> None:
    """Have an application's operations find these."""
    app.state.runtime, app.state.board, app.state.access = runtime, board, access


# Asynchronous, though nothing is waited for: FastAPI sends what is not to another thread.
async def _engine(asked: HTTPConnection) -> Runtime:
    found: Runtime = asked.app.state.runtime
    return found


async def _board(asked: HTTPConnection) -> ProgressFeed:
    found: ProgressFeed = asked.app.state.board
    return found


async def _access(asked: HTTPConnection) -> Access:
    found: Access = asked.app.state.access
    return found


RuntimeDep = Annotated[Runtime, Depends(_engine)]
ItsBoard = Annotated[ProgressFeed, Depends(_board)]
ItsAccess = Annotated[Access, Depends(_access)]

"""What a request is answered from: its application's engine and board, and who may ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from cj_pipeline.runtime import Engine
from cj_pipeline.service.auth import Access
from cj_pipeline.service.subscriptions import Board


def surround(app: FastAPI, engine: Engine, board: Board, access: Access) -> None:
    """Have an application's operations find these."""
    app.state.engine, app.state.board, app.state.access = engine, board, access


# Asynchronous, though nothing is waited for: FastAPI sends what is not to another thread.
async def _engine(asked: HTTPConnection) -> Engine:
    found: Engine = asked.app.state.engine
    return found


async def _board(asked: HTTPConnection) -> Board:
    found: Board = asked.app.state.board
    return found


async def _access(asked: HTTPConnection) -> Access:
    found: Access = asked.app.state.access
    return found


ItsEngine = Annotated[Engine, Depends(_engine)]
ItsBoard = Annotated[Board, Depends(_board)]
ItsAccess = Annotated[Access, Depends(_access)]

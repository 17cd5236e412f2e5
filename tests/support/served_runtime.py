"""The HTTP service over a home folder, asked in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from cj_pipeline.tokens import AccessToken, hash_of, new_token
from tests.support.batches import open_engine
from tests.support.finished_batches import fill

TOKEN = "Zk3vQ9-made-for-nothing-else-7Lw"
SOCKETS = "ws://127.0.0.1:8421"
"""Starlette's client takes its own name for a WebSocket unless it is given one."""

MINI: dict[str, Any] = {
    "batch_id": "mini",
    "settings": {
        "judges": ["quality"],
        "score_stability_threshold": None,
        "max_pairwise_comparisons": 3,
        "spend_cap_usd": 1.0,
    },
    "instructions": "Describe something you have learned.",
    "essays": [
        {"essay_id": f"essay-{n}", "text": f"What I have learned is number {n}, and more. " * 3}
        for n in range(1, 4)
    ],
}


def token_for(
    *scopes: str, batches: tuple[str, ...] = ("*",), expires: date = date(2999, 1, 1)
) -> tuple[str, AccessToken]:
    """Return a new token, and what an installation knows of it."""
    token = new_token()
    known = hash_of(token)
    assert known is not None
    return token, AccessToken("-".join(scopes), known, frozenset(scopes), batches, expires)


def home_with_batches(home: Path) -> Runtime:
    """Return an engine over a home whose store holds three ended batches."""
    runtime = open_engine(home)
    with runtime.store.write() as db:
        fill(db)
    return runtime


@contextmanager
def asking(runtime: Runtime, *, token: str | None = None, **access: Any) -> Iterator[TestClient]:
    """Give a client of the service; with a token, it brings that token."""
    app = create_app(runtime, Access(token, **access))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with TestClient(
        app, base_url="http://127.0.0.1:8421", headers=headers, raise_server_exceptions=False
    ) as client:
        yield client

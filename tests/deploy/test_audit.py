"""The audit says what is known, and where nothing could be known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deploy.audit import main
from tests.support.listening import listening

FLAW = {
    "id": "GHSA-test",
    "summary": "a flaw",
    "affected": [
        {
            "package": {"name": "starlette", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9.9"}]}],
        }
    ],
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of one package."""
    path = tmp_path / "requirements.lock"
    path.write_text(f"starlette==1.10.0 --hash=sha256:{hashlib.sha256(b'').hexdigest()}\n")
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what listens on this machine can be reached."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def advisories(known: list[dict[str, object]]) -> Iterator[str]:
    """Serve an advisory source that knows these flaws."""

    async def query(request: Request) -> JSONResponse:
        asked = json.loads(await request.body())
        return JSONResponse({"vulns": known} if asked["package"]["name"] == "starlette" else {})

    with listening(Starlette(routes=[Route("/v1/query", query, methods=["POST"])])) as port:
        yield f"http://127.0.0.1:{port}/v1/query"


@pytest.mark.parametrize(("known", "code"), [([], 0), ([FLAW], 1)])
def test_what_a_source_knows_is_said(
    lock: Path, capsys: pytest.CaptureFixture[str], known: list[dict[str, object]], code: int
) -> None:
    """With what mends it."""
    with advisories(known) as url:
        found = main(["--osv-url", url], lock)

    said = capsys.readouterr().out
    assert found == code, said
    assert ("GHSA-test, mended in 9.9.9" in said) is bool(known)
    assert ("knows of nothing" in said) is not known


def test_where_no_source_can_be_reached_it_says_so(
    lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence would be taken for a clean result."""
    assert main(["--osv-url", "http://127.0.0.1:9/v1/query"], lock) == 3

    assert "no clean result" in capsys.readouterr().out

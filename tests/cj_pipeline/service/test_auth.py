"""Who is let in: by token, by session, from this machine, and from which pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from cj_pipeline.errors import SettingsError
from cj_pipeline.runtime import Runtime
from cj_pipeline.service.auth import COOKIE, EVERYTHING, Access, is_loopback, require_safe
from tests.support.batches import open_engine
from tests.support.served_runtime import SOCKETS, TOKEN, asking

PROTECTED = ["/api/v1/batches", "/api/v1/batches/abc", "/metrics"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """An empty home."""
    return open_engine(tmp_path_factory.mktemp("home"))


@pytest.fixture
def stranger(runtime: Runtime) -> Iterator[TestClient]:
    """A client of a service that has a token, without it."""
    with asking(runtime, token=TOKEN) as client:
        del client.headers["Authorization"]
        yield client


@pytest.mark.parametrize("path", PROTECTED)
def test_without_the_token_nothing_is_told(stranger: TestClient, path: str) -> None:
    """Whether a batch exists included."""
    reply = stranger.get(path)

    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"])
def test_a_wrong_token_is_refused(stranger: TestClient, given: str) -> None:
    """In whatever shape it comes."""
    reply = stranger.get("/api/v1/batches", headers={"Authorization": given.encode("latin-1")})

    assert reply.status_code == 401
    assert TOKEN not in reply.text


def test_the_token_lets_in(runtime: Runtime) -> None:
    """As a bearer token."""
    with asking(runtime, token=TOKEN) as client:
        assert client.get("/api/v1/batches").status_code == 200


def test_a_browser_trades_the_token_for_a_session(stranger: TestClient) -> None:
    """The cookie is kept from scripts and other sites, and does not hold the token."""
    reply = stranger.post("/session", json={"token": TOKEN})

    cookie = reply.headers["set-cookie"]
    assert reply.status_code == 204
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert stranger.get("/api/v1/batches").status_code == 200


def test_a_wrong_token_opens_no_session(stranger: TestClient) -> None:
    """And sets no cookie."""
    reply = stranger.post("/session", json={"token": "wrong"})

    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers


def test_a_session_ends() -> None:
    """A stolen cookie is of no use for ever."""
    now = [1_000_000.0]
    access = Access(TOKEN, clock=lambda: now[0])
    session = access.begin_session(TOKEN)
    held = Headers({"cookie": f"{COOKIE}={session}"})

    before = access.grant(held)
    now[0] += 13 * 3600

    assert (before, access.grant(held)) == (EVERYTHING, None)


def test_signing_out_ends_the_session_wherever_its_cookie_is(stranger: TestClient) -> None:
    """A copy of the cookie, from a shared machine or a log, is worth nothing afterwards."""
    stranger.post("/session", json={"token": TOKEN})
    copied = {"Cookie": f"{COOKIE}={stranger.cookies[COOKIE]}"}
    stranger.cookies.clear()

    before = stranger.get("/api/v1/batches", headers=copied)
    stranger.delete("/session", headers=copied)
    after = stranger.get("/api/v1/batches", headers=copied)

    assert (before.status_code, after.status_code) == (200, 401)


@pytest.mark.parametrize(
    "forged", ["", "9999999999.", "9999999999.00", "x.y", f"{10**400}.a", "٣.a"]
)
def test_a_forged_session_is_refused(stranger: TestClient, forged: str) -> None:
    """Whatever a stranger makes up."""
    reply = stranger.get(
        "/api/v1/batches", headers={"Cookie": f"{COOKIE}={forged}".encode("utf-8", "replace")}
    )

    assert reply.status_code == 401


def test_pages_of_other_sites_may_not_ask(runtime: Runtime) -> None:
    """Without a token the visitor's own browser would otherwise be the way in."""
    with asking(runtime) as client:
        foreign = client.delete("/api/v1/batches/abc", headers={"Origin": "https://evil.example"})
        own = client.get("/api/v1/batches", headers={"Origin": "http://127.0.0.1:8421"})

    assert (foreign.status_code, own.status_code) == (403, 200)


def test_without_a_token_only_this_machines_names_are_answered(runtime: Runtime) -> None:
    """A name that somebody else's DNS has pointed here is not one of them."""
    with asking(runtime) as client:
        reply = client.get("/api/v1/batches", headers={"Host": "rebound.example"})

    assert reply.status_code == 403


def test_a_foreign_page_cannot_open_a_websocket(runtime: Runtime) -> None:
    """Browsers let any page try."""
    with (
        asking(runtime) as client,
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(
            f"{SOCKETS}/api/v1/batches/abc/events", headers={"Origin": "https://evil.example"}
        ),
    ):
        pass


def test_a_websocket_needs_the_token_too(stranger: TestClient) -> None:
    """It tells as much as the API."""
    with (
        pytest.raises(WebSocketDisconnect),
        stranger.websocket_connect(f"{SOCKETS}/api/v1/batches/abc/events"),
    ):
        pass


def test_a_body_that_is_too_large_is_refused(runtime: Runtime) -> None:
    """By what it says of itself, and by what arrives where it says nothing."""
    with asking(runtime, max_body_bytes=1000) as client:
        declared = client.post(
            "/api/v1/batches", content=b"x" * 1001, headers={"Content-Type": "application/json"}
        )
        streamed = client.post(
            "/api/v1/batches",
            content=(b"x" * 100 for _ in range(20)),
            headers={"Content-Type": "application/zip"},
        )

    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert streamed.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])  # noqa: S104
def test_nobody_is_served_from_elsewhere_without_a_token(host: str) -> None:
    """Whoever forgets it is told before anything listens."""
    with pytest.raises(SettingsError, match="CJ_SERVE_TOKEN"):
        require_safe(host, None)


@pytest.mark.parametrize("token", ["short", "changemechangeme", "cj-serve-token-2024"])
def test_a_weak_token_is_refused(token: str) -> None:
    """It could be guessed, from this machine as well."""
    with pytest.raises(SettingsError, match="could be guessed"):
        require_safe("127.0.0.1", token)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_what_cannot_be_elsewhere(host: str, expected: bool) -> None:
    """Names that only look like it are not."""
    assert is_loopback(host) is expected


def test_every_answer_bears_the_safe_headers(stranger: TestClient) -> None:
    """Refusals included."""
    for path in ("/api/v1/batches", "/healthz", "/", "/batches/abc", "/nothing"):
        headers = stranger.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_the_token_is_never_logged(
    runtime: Runtime, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nor a session's cookie."""
    with asking(runtime, token=TOKEN) as client:
        client.post("/session", json={"token": TOKEN})
        client.get("/api/v1/batches/nobody")
        client.get("/api/v1/batches", headers={"Authorization": f"Bearer {TOKEN}x"})
        cookie = client.cookies.get(COOKIE)

    said = "".join(capsys.readouterr())
    assert TOKEN not in said
    assert cookie not in said

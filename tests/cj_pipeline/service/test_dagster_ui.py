"""What stands before Dagster's UI: it lets in who may, and changes nothing on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from cj_pipeline.service.auth import Access
from cj_pipeline.service.dagster_ui import COOKIE, SIGN_IN, SIGN_OUT, dagster_ui
from tests.support.listening import listening
from tests.support.served_runtime import TOKEN, token_for

PAGE = {"Accept": "text/html"}
SOCKET = "ws://127.0.0.1:3000/graphql"


async def _told(request: Request) -> Response:
    """Answer with what arrived, so that a test sees it."""
    body = (await request.body()).decode()
    told = {"method": request.method, "target": str(request.url), "body": body}
    return JSONResponse(told | {"headers": dict(request.headers)}, headers={"X-Own": "kept"})


async def _talk(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=websocket.scope["subprotocols"][0])
    while True:
        text = await websocket.receive_text()
        if text == "end":
            await websocket.close(4001)
            return
        await websocket.send_text(text[::-1])


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """A server in Dagster's place."""
    routes = [
        Route("/{path:path}", _told, methods=["GET", "POST", "HEAD"]),
        WebSocketRoute("/graphql", _talk),
    ]
    with listening(Starlette(routes=routes)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ui(upstream: str, access: Access) -> Iterator[TestClient]:
    """Give a client of the UI."""
    app = dagster_ui(upstream, access)
    with TestClient(app, base_url="http://127.0.0.1:3000", follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(upstream: str) -> Iterator[TestClient]:
    """A client, without a token, of a UI that asks for one."""
    with ui(upstream, Access(TOKEN, cookie=COOKIE)) as client:
        yield client


def signed_in(client: TestClient, token: str = TOKEN) -> int:
    """Sign a client in as the page does; return the status."""
    return client.post(SIGN_IN, data={"token": token}).status_code


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.evil.example", ""])
def test_without_tokens_only_this_machines_names_are_answered(upstream: str, host: str) -> None:
    """A page whose name somebody has pointed here could launch runs otherwise."""
    with ui(upstream, Access(None)) as client:
        own = client.get("/runs", headers=PAGE)
        foreign = client.get("/runs", headers={**PAGE, "Host": host})

    assert (own.status_code, foreign.status_code) == (200, 403)


def test_pages_of_other_sites_get_nothing(upstream: str) -> None:
    """Neither by a form nor over a WebSocket, signed in or not."""
    evil = {"Origin": "https://evil.example"}
    with ui(upstream, Access(None)) as client:
        assert client.post("/graphql", headers=evil).status_code == 403
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect(SOCKET, headers=evil),
        ):
            pass


def test_a_browser_without_a_token_is_sent_to_sign_in(client: TestClient) -> None:
    """And a program is told what is missing."""
    page = client.get("/runs", headers=PAGE)
    program = client.post("/graphql")

    assert (page.status_code, page.headers["location"]) == (303, SIGN_IN)
    assert program.status_code == 401


def test_who_signs_in_is_let_in_until_signed_out(client: TestClient) -> None:
    """Wherever the cookie has been copied to."""
    codes = [signed_in(client), client.get("/runs", headers=PAGE).status_code]
    copied = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    client.post(SIGN_OUT)
    client.cookies.clear()

    assert codes == [303, 200]
    assert client.get("/runs", headers=copied).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "batches", "status"),
    [
        (("admin",), ("*",), 303),
        (("read", "submit", "judge", "release"), ("*",), 401),
        (("admin",), ("spring-*",), 401),
    ],
)
def test_only_who_may_do_everything_may_launch_runs(
    upstream: str, scopes: tuple[str, ...], batches: tuple[str, ...], status: int
) -> None:
    """Dagster knows no scopes: whoever is in can run anything on any batch."""
    token, known = token_for(*scopes, batches=batches)
    with ui(upstream, Access(None, tokens=lambda: (known,), cookie=COOKIE)) as client:
        entered = signed_in(client, token)
        client.cookies.clear()
        bearer = client.post("/graphql", headers={"Authorization": f"Bearer {token}"})

    assert entered == status
    assert (bearer.status_code == 200) is (status == 303)


@pytest.mark.parametrize("token", ["", "wrong", "<script>"])
def test_a_wrong_token_is_told_and_opens_nothing(client: TestClient, token: str) -> None:
    """And does not come back in the page."""
    reply = client.post(SIGN_IN, data={"token": token})

    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers
    assert "<script>" not in reply.text


def test_a_request_goes_on_as_it_came_but_for_who_asks(client: TestClient) -> None:
    """Dagster need not see the cookie or the token, and could log them."""
    signed_in(client)

    reply = client.post("/graphql?a=1&b=%2F", content=b"{query}", headers={"X-Mine": "too"})

    told = reply.json()
    assert (told["method"], told["body"]) == ("POST", "{query}")
    assert told["target"].endswith("/graphql?a=1&b=%2F")
    assert told["headers"]["x-mine"] == "too"
    assert not {"cookie", "authorization", "origin"} & set(told["headers"])
    assert reply.headers["x-own"] == "kept"
    assert reply.headers["x-frame-options"] == "DENY"


def test_a_websocket_is_carried_both_ways_and_closed_alike(client: TestClient) -> None:
    """Dagster's pages follow runs over one."""
    signed_in(client)
    with client.websocket_connect(
        SOCKET,
        subprotocols=["graphql-ws"],
        headers={"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"},
    ) as socket:
        socket.send_text("abc")
        answer = socket.receive_text()
        socket.send_text("end")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()

    assert (socket.accepted_subprotocol, answer) == ("graphql-ws", "cba")
    assert closed.value.code == 4001


def test_while_dagster_starts_the_page_says_so() -> None:
    """`cj ui` is there seconds before Dagster is."""
    with ui("http://127.0.0.1:1", Access(None)) as client:
        reply = client.get("/runs", headers=PAGE)
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(SOCKET):
            pass

    assert reply.status_code == 502
    assert reply.headers["retry-after"] == "3"

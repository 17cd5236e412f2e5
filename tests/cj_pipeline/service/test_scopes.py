"""What each token is for, and that it is for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import COOKIE, Access, Grant, is_open_path
from cj_pipeline.tokens import SCOPES, AccessToken
from tests.support.finished_batches import ARGUMENTS, SPRING
from tests.support.served_runtime import MINI, SOCKETS, asking, home_with_batches, token_for

NEEDED = {
    "POST /api/v1/batches": "submit",
    "DELETE /api/v1/batches/{batch_id}": "submit",
    "GET /api/v1/batches": "read",
    "GET /api/v1/batches/{batch_id}": "read",
    "GET /api/v1/batches/{batch_id}/artefact": "read",
    "GET /api/v1/batches/{batch_id}/comparisons": "read",
    "GET /api/v1/batches/{batch_id}/grades": "read",
    "GET /api/v1/batches/{batch_id}/moderation": "read",
    "GET /api/v1/batches/{batch_id}/moderation/{essay_id}": "read",
    "POST /api/v1/batches/{batch_id}/moderation": "release",
    "POST /api/v1/batches/{batch_id}/release": "release",
    "GET /api/v1/batches/{batch_id}/report": "read",
    "GET /api/v1/batches/{batch_id}/scores": "read",
    "GET /metrics": "read",
}


class _Tokens:
    """The tokens of an installation, which may be changed while it serves."""

    def __init__(self) -> None:
        self.known: list[AccessToken] = []

    def __call__(self) -> list[AccessToken]:
        return self.known

    def add(self, *scopes: str, **more: object) -> dict[str, str]:
        """Return the headers of a new token's bearer."""
        token, known = token_for(*scopes, **more)  # type: ignore[arg-type]
        self.known.append(known)
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A home with three ended batches."""
    return home_with_batches(tmp_path_factory.mktemp("home"))


@pytest.fixture
def tokens() -> _Tokens:
    return _Tokens()


@pytest.fixture
def client(runtime: Runtime, tokens: _Tokens) -> Iterator[TestClient]:
    """A client of a service that asks for tokens, without one."""
    tokens.add("admin")
    with asking(runtime, tokens=tokens) as client:
        yield client


def test_the_table_above_has_every_operation_there_is(runtime: Runtime) -> None:
    """One that is added has to be added above, too, and is then tried with each scope."""
    document = create_app(runtime, Access(None)).openapi()

    found = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
        if not is_open_path(path)
    }

    assert found == set(NEEDED)


def _forgotten() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(("scope", "status"), [("read", 403), ("admin", 200)])
def test_an_operation_that_declares_nothing_is_answered_to_admin_alone(
    runtime: Runtime, tokens: _Tokens, scope: str, status: int
) -> None:
    """Forgetting a scope must open nothing."""
    app = create_app(runtime, Access(None, tokens=tokens))
    app.get("/api/v1/forgotten")(_forgotten)
    headers = tokens.add(scope)

    with TestClient(app, base_url="http://127.0.0.1:8421") as client:
        reply = client.get("/api/v1/forgotten", headers=headers)

    assert reply.status_code == status


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operation", NEEDED)
def test_a_token_does_what_its_scope_is_for_and_nothing_else(
    client: TestClient, tokens: _Tokens, operation: str, scope: str
) -> None:
    """Whoever submits need not see grades, and whoever sees them need not cancel."""
    method, path = operation.split()
    headers = tokens.add(scope)

    reply = client.request(
        method,
        path.format(batch_id=SPRING, essay_id="pupil-01"),
        headers=headers,
        content=b"" if "POST" in method else None,
    )

    is_for_it = scope in {NEEDED[operation], "admin"}
    assert (reply.status_code == 403) is not is_for_it, reply.text
    if not is_for_it:
        assert f"`{NEEDED[operation]}`" in reply.json()["detail"]


@pytest.mark.parametrize("what", ["", "/report", "/grades", "/scores", "/comparisons", "/artefact"])
def test_a_batch_of_others_is_answered_like_one_that_does_not_exist(
    client: TestClient, tokens: _Tokens, what: str
) -> None:
    """That it exists is nobody else's business."""
    headers = tokens.add("read", "submit", batches=("arg*",))

    own = client.get(f"/api/v1/batches/{ARGUMENTS}{what}", headers=headers)
    others = client.get(f"/api/v1/batches/{SPRING}{what}", headers=headers)
    nobodys = client.get(f"/api/v1/batches/nobodys{what}", headers=headers)

    assert own.status_code in {200, 404}
    assert others.status_code == nobodys.status_code == 404
    assert others.json()["detail"] == nobodys.json()["detail"].replace("nobodys", SPRING)
    assert client.delete(f"/api/v1/batches/{SPRING}", headers=headers).status_code == 404


def test_only_batches_of_a_tokens_own_are_listed(client: TestClient, tokens: _Tokens) -> None:
    """Names say which class, and where grades are late."""
    listed = client.get("/api/v1/batches", headers=tokens.add("read", batches=("arg*",))).json()

    assert [item["batch_id"] for item in listed["items"]] == [ARGUMENTS]


def test_metrics_count_all_batches_so_they_need_a_token_for_all(
    client: TestClient, tokens: _Tokens
) -> None:
    """Costs of another school are among them."""
    some = client.get("/metrics", headers=tokens.add("read", batches=("arg*",)))
    every = client.get("/metrics", headers=tokens.add("read"))

    assert (some.status_code, every.status_code) == (403, 200)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 403),
        ({"batch_id": "arg-new"}, 202),
        ({"batch_id": "arg-linked", "settings": {**MINI["settings"], "link_to": [SPRING]}}, 422),
        (
            {
                "batch_id": "arg-begun",
                "settings": {**MINI["settings"], "head_start": {"batch": SPRING}},
            },
            422,
        ),
    ],
    ids=["foreign name", "own name", "linked to a foreign one", "begun from a foreign one"],
)
def test_a_token_submits_batches_of_its_own_only(
    client: TestClient, tokens: _Tokens, changes: dict[str, object], status: int
) -> None:
    """Placing one's batch on another's scale would show the other's scores."""
    headers = tokens.add("submit", batches=("arg*",))

    reply = client.post("/api/v1/batches", json=MINI | changes, headers=headers)

    assert reply.status_code == status, reply.text


def test_a_watcher_needs_to_read_and_the_batch_to_be_its_own(
    client: TestClient, tokens: _Tokens
) -> None:
    """The WebSocket tells as much as the API."""
    codes = []
    for headers in (tokens.add("submit"), tokens.add("read", batches=("arg*",))):
        with client.websocket_connect(
            f"{SOCKETS}/api/v1/batches/{SPRING}/events", headers=headers
        ) as socket:
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
            codes.append(closed.value.code)

    assert codes == [4403, 4404]


def test_a_revoked_token_ends_with_every_session_of_it(client: TestClient, tokens: _Tokens) -> None:
    """At once, without a restart."""
    headers = tokens.add("read")
    token = headers["Authorization"].partition(" ")[2]
    client.post("/session", json={"token": token})
    session = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    client.cookies.clear()

    before = [
        client.get("/api/v1/batches", headers=each).status_code for each in (headers, session)
    ]
    tokens.known.pop()
    after = [client.get("/api/v1/batches", headers=each).status_code for each in (headers, session)]

    assert (before, after) == ([200, 200], [401, 401])


def test_a_service_is_not_opened_by_its_last_token_being_revoked(
    client: TestClient, tokens: _Tokens
) -> None:
    """No token at all means that this machine is served without one: only from the start."""
    client.get("/api/v1/batches")
    tokens.known.clear()

    assert client.get("/api/v1/batches").status_code == 401


def test_a_token_is_good_to_the_end_of_its_last_day() -> None:
    """In UTC, whatever the machine's own zone is."""
    token, known = token_for("read", expires=date(2026, 6, 30))
    now = [1782863999.0]  # 2026-06-30, a second before midnight
    access = Access(None, tokens=lambda: (known,), clock=lambda: now[0])

    last = access.grant_of(token)
    now[0] += 1

    assert last == Grant("read", frozenset({"read"}))
    assert access.grant_of(token) is None


def test_a_hash_that_was_made_of_a_chosen_word_lets_nobody_in() -> None:
    """Only `cj token create` makes tokens: a word's hash typed into the file is a weak token."""
    import hashlib

    weak = AccessToken(
        "weak", hashlib.sha256(b"password").hexdigest(), frozenset(SCOPES), ("*",), date(2999, 1, 1)
    )

    assert Access(None, tokens=lambda: (weak,)).grant_of("password") is None


def test_nothing_that_is_written_down_or_sent_lets_anybody_in() -> None:
    """A hash is no token, and a cookie is neither."""
    token, known = token_for("admin")
    access = Access(None, tokens=lambda: (known,))
    session = access.begin_session(token)
    assert session is not None

    assert access.grant_of(known.sha256) is None
    assert access.grant_of(session) is None
    assert access.begin_session(known.sha256) is None

"""A batch's events over a WebSocket: all of them, in order, from wherever one left off."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import begin, end, open_engine, write_batch
from tests.support.served_runtime import SOCKETS, asking

SETTINGS = {"judges": ["quality"], "score_stability_threshold": None, "max_pairwise_comparisons": 3}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def begun(runtime: Runtime, tmp_path: Path) -> str:
    """Take a batch in, ask its first wave, and return its name."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=SETTINGS)
    return begin(runtime, folder)


def heard(socket: WebSocketTestSession) -> tuple[list[dict[str, Any]], int]:
    """Return everything said until the connection is closed, and the code it is closed with."""
    said = []
    while True:
        try:
            said.append(socket.receive_json())
        except WebSocketDisconnect as closed:
            return said, closed.code


def listen(client: TestClient, batch_id: str, after: str = "0") -> tuple[list[dict[str, Any]], int]:
    """Connect and listen to the end."""
    with client.websocket_connect(
        f"{SOCKETS}/api/v1/batches/{batch_id}/events?after={after}"
    ) as socket:
        return heard(socket)


def test_a_batch_is_told_live_to_its_end(runtime: Runtime, tmp_path: Path) -> None:
    """Whoever moves it, in whatever process."""
    batch_id = begun(runtime, tmp_path)
    mover = threading.Thread(target=end, args=(open_engine(runtime.home), batch_id))

    with (
        asking(runtime) as client,
        client.websocket_connect(f"{SOCKETS}/api/v1/batches/{batch_id}/events") as socket,
    ):
        first = socket.receive_json()
        mover.start()
        rest, code = heard(socket)
    mover.join()

    events = [said for said in [first, *rest] if said["type"] == "event"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("opened", "ended")
    assert events[-1]["progress"]["outcome"] == "success"
    assert code == 1000


def test_whoever_comes_back_is_told_what_they_missed(runtime: Runtime, tmp_path: Path) -> None:
    """And not what they know."""
    batch_id = begun(runtime, tmp_path)
    end(runtime, batch_id)

    with asking(runtime) as client:
        said, _ = listen(client, batch_id, after="2")

    assert [each["sequence"] for each in said if each["type"] == "event"] == [3, 4]


def test_how_it_stands_is_said_even_where_nothing_happened(
    runtime: Runtime, tmp_path: Path
) -> None:
    """A page that connects late must not stay empty."""
    batch_id = begun(runtime, tmp_path)
    end(runtime, batch_id)

    with asking(runtime) as client:
        said, _ = listen(client, batch_id, after="999")

    assert [each["type"] for each in said] == ["progress"]
    assert said[0]["progress"]["n_succeeded"] == 3


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "x", "a%00b"])
def test_an_unknown_batch_closes_the_connection(runtime: Runtime, name: str) -> None:
    """With a code of its own."""
    with asking(runtime) as client:
        said, code = listen(client, name)

    assert (said, code) == ([], 4404)


def test_a_number_that_is_none_closes_the_connection(runtime: Runtime, tmp_path: Path) -> None:
    """Also one that only looks like one."""
    batch_id = begun(runtime, tmp_path)

    with asking(runtime) as client:
        assert [listen(client, batch_id, after)[1] for after in ("x", "-1", "٣")] == [4404] * 3


def test_a_batch_that_waits_says_so_and_is_followed_once_it_is_taken_in(runtime: Runtime) -> None:
    """Nobody has to connect again."""
    folder = write_batch(runtime.inbox / "waits", n_students=3, settings=SETTINGS)

    with (
        asking(runtime) as client,
        client.websocket_connect(f"{SOCKETS}/api/v1/batches/waits/events") as socket,
    ):
        first = socket.receive_json()
        ingest(runtime, folder)
        second = socket.receive_json()
        cancel(runtime, "waits")
        end(runtime, "waits")
        rest, code = heard(socket)

    assert first == {"type": "queued", "batch_id": "waits"}
    assert second["kind"] == "opened"
    assert [each["kind"] for each in rest if each["type"] == "event"][-1] == "ended"
    assert code == 1000


def test_a_rejected_batch_closes_with_its_own_code(runtime: Runtime, tmp_path: Path) -> None:
    """It will not move until somebody mends it."""
    folder = write_batch(tmp_path / "alone", n_students=1, settings=SETTINGS)
    with pytest.raises(BatchProblemsError):
        ingest(runtime, folder)

    with asking(runtime) as client:
        _, code = listen(client, "alone")

    assert code == 4422


def test_many_watch_one_batch(runtime: Runtime, tmp_path: Path) -> None:
    """Each sees all of it."""
    batch_id = begun(runtime, tmp_path)
    end(runtime, batch_id)

    with asking(runtime) as client:
        told = [listen(client, batch_id)[0] for _ in range(5)]

    assert all(len(said) == len(told[0]) for said in told)

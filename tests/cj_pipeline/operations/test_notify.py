"""Somebody is told of every end, rejection and wait: once each, whatever fails on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cj_pipeline.errors import SettingsError
from cj_pipeline.installation import INSTALLATION_FILE
from cj_pipeline.operations.delivery import Address, DeliveryError, signature
from cj_pipeline.operations.notify import MAX_TRIES, Told, notify
from cj_pipeline.runtime import Runtime
from tests.support.batches import ManualClock, open_engine
from tests.support.finished_batches import BROKEN, fill


class Receiver:
    """What was delivered, and how many deliveries fail first."""

    def __init__(self, *, n_failures: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.n_failures = n_failures

    def __call__(self, address: Address, key: str, body: dict[str, Any], now: datetime) -> None:
        del address, now
        assert body["id"] == key
        if self.n_failures:
            self.n_failures -= 1
            msg = "the webhook answered 502"
            raise DeliveryError(msg)
        self.bodies.append(body)

    @property
    def told(self) -> list[tuple[str, str]]:
        """What was told of which batch."""
        return [(body["batch_id"], body["kind"]) for body in self.bodies]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
def runtime(tmp_path: Path, clock: ManualClock) -> Runtime:
    """A runtime whose installation names one webhook, first seen before anything happened."""
    runtime = open_engine(tmp_path / "home", {"SECRET": "s3cret"}, clock=clock)
    installation(runtime, "notify: [{webhook: 'http://127.0.0.1:9/x', secret_variable: SECRET}]")
    notify(runtime, deliver=Receiver())
    return runtime


def installation(runtime: Runtime, text: str) -> None:
    """Write the operator's file."""
    runtime.home.mkdir(exist_ok=True)
    (runtime.home / INSTALLATION_FILE).write_text(text)


def reject(runtime: Runtime, clock: ManualClock) -> None:
    """Have the store hold one rejected batch, from now on."""
    clock.sleep(1)
    with runtime.store.write() as db:
        fill(db)
        db.execute("UPDATE batches SET state = 'rejected', updated_at = ?", [clock()])
        db.execute("DELETE FROM batches WHERE batch_id <> ?", [BROKEN])
        for table in ("progress_events", "grading_reports"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - a table of ours


def test_nobody_is_told_until_an_address_is_set(tmp_path: Path, clock: ManualClock) -> None:
    """Then nothing is even written down."""
    runtime = open_engine(tmp_path / "home", {}, clock=clock)

    assert notify(runtime, deliver=Receiver()) == Told(0, 0, 0)


def test_what_happened_before_an_address_was_set_is_not_sent_to_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A year's batches in one night would be the first thing people turn off."""
    runtime = open_engine(tmp_path / "home", {}, clock=clock)
    reject(runtime, clock)
    clock.sleep(60)
    installation(runtime, "notify: [{webhook: 'http://127.0.0.1:9/x'}]")
    receiver = Receiver()

    notify(runtime, deliver=receiver)

    assert receiver.told == []


def test_an_event_is_told_once(runtime: Runtime, clock: ManualClock) -> None:
    """However often it is looked for."""
    reject(runtime, clock)
    receiver = Receiver()

    for _ in range(3):
        notify(runtime, deliver=receiver)

    assert receiver.told == [(BROKEN, "rejected")]


def test_what_was_not_taken_is_tried_again_later_and_given_up_in_the_end(
    runtime: Runtime, clock: ManualClock
) -> None:
    """Pauses grow; what was given up says why."""
    reject(runtime, clock)
    receiver = Receiver(n_failures=1)

    notify(runtime, deliver=receiver)
    at_once = notify(runtime, deliver=receiver)
    clock.sleep(31)
    notify(runtime, deliver=receiver)

    assert at_once == Told(0, 0, 0)
    assert receiver.told == [(BROKEN, "rejected")]

    clock.sleep(1)
    with runtime.store.write() as db:
        db.execute("UPDATE batches SET updated_at = ?", [clock()])
    never = Receiver(n_failures=999)
    for _ in range(MAX_TRIES):
        notify(runtime, deliver=never)
        clock.sleep(6 * 3600)
    with runtime.store.read() as db:
        rows = db.rows("SELECT state, error, n_tries FROM notifications ORDER BY recorded_at")
    assert rows[-1] == {
        "state": "given_up",
        "error": "the webhook answered 502",
        "n_tries": MAX_TRIES,
    }


def test_a_delivery_whose_end_is_unknown_is_sent_again_by_the_same_id(
    runtime: Runtime, clock: ManualClock
) -> None:
    """Killed between sending and recording: the receiver knows the second by its id."""
    reject(runtime, clock)
    receiver = Receiver()

    def killed(address: Address, key: str, body: dict[str, Any], now: datetime) -> None:
        receiver(address, key, body, now)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notify(runtime, deliver=killed)
    too_early = notify(runtime, deliver=receiver)
    clock.sleep(601)
    notify(runtime, deliver=receiver)

    assert too_early == Told(0, 0, 0)
    assert len(receiver.bodies) == 2
    assert len({body["id"] for body in receiver.bodies}) == 1


def test_the_store_holds_no_address(runtime: Runtime, clock: ManualClock) -> None:
    """It may hold a token in its path."""
    reject(runtime, clock)
    notify(runtime, deliver=Receiver())

    with runtime.store.read() as db:
        rows = db.rows("FROM notifications") + db.rows("FROM notification_addresses")

    assert "127.0.0.1:9" not in json.dumps(rows, default=str)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("notify: [{webhook: 'ftp://x'}]", r"notify\[0\]"),
        ("notify: {webhook: 'http://x'}", "list"),
        ("notify: [{webhook: 'http://x', secret_variable: NOT_SET}]", "NOT_SET"),
        ("notify: [{command: []}]", r"notify\[0\]"),
        ("notify: [{webhook: 'http://x', events: [lunch]}]", r"notify\[0\]"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(runtime: Runtime, text: str, problem: str) -> None:
    """A typing error must not mean silence."""
    installation(runtime, text)

    with pytest.raises(SettingsError, match=problem):
        notify(runtime, deliver=Receiver())


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server that takes what is posted, and its address."""
    posts: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/told", posts
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_posted_and_signed(
    runtime: Runtime, clock: ManualClock, webhook: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    """By Standard Webhooks: id, time and body together."""
    url, posts = webhook
    installation(runtime, f"notify: [{{webhook: '{url}', secret_variable: SECRET}}]")
    notify(runtime)
    reject(runtime, clock)

    assert notify(runtime) == Told(1, 1, 0)
    ((headers, body),) = posts
    told = json.loads(body)
    assert (told["batch_id"], told["kind"]) == (BROKEN, "rejected")
    assert headers["webhook-id"] == told["id"]
    stamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == signature("s3cret", told["id"], stamp, body)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The worked example of the specification's libraries."""
    payload = b'{"test": 2432232314}'

    signed = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        payload,
    )

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_command_is_given_the_notification(
    runtime: Runtime, clock: ManualClock, tmp_path: Path
) -> None:
    """On its standard input, without a shell."""
    out = tmp_path / "told.json"
    installation(runtime, f"notify: [{{command: [tee, '{out}']}}]")
    notify(runtime)
    reject(runtime, clock)

    notify(runtime)

    assert json.loads(out.read_text())["kind"] == "rejected"


def test_a_wait_is_told_with_its_reason(runtime: Runtime, clock: ManualClock) -> None:
    """A key that is refused on a Friday evening."""
    clock.sleep(1)
    with runtime.store.write() as db:
        fill(db)
        db.execute("DELETE FROM batch_report")
        db.insert(
            "step_failures",
            [
                {
                    "batch_id": BROKEN,
                    "step": "provider_jobs",
                    "reason": "set OPENAI_API_KEY",
                    "n_failures": 1,
                    "first_failed_at": clock(),
                    "last_failed_at": clock() + timedelta(days=3650),
                }
            ],
        )
    receiver = Receiver()

    notify(runtime, deliver=receiver)

    waits = [body for body in receiver.bodies if body["kind"] == "waiting"]
    assert [(w["batch_id"], w["waiting_for"], w["reason"]) for w in waits] == [
        (BROKEN, "person", "set OPENAI_API_KEY")
    ]

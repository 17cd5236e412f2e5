"""Webhooks: only genuine ones, once each, and only as a nudge to poll."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import open_engine, write_batch
from tests.support.served_runtime import TOKEN, asking

SECRET = "whsec_" + base64.b64encode(b"a secret of the webhooks").decode()
SETTINGS = {"judges": ["quality"], "max_pairwise_comparisons": 3}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """An engine that expects webhooks, with one provider job open that is due in an hour."""
    environment = {"OPENAI_WEBHOOK_SECRET": SECRET, "GEMINI_WEBHOOK_SECRET": SECRET}
    runtime = open_engine(tmp_path / "home", environment)
    batch_id = ingest(
        runtime, write_batch(tmp_path / "batch", n_students=3, settings=SETTINGS)
    ).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET next_poll_at = ?", [runtime.clock() + timedelta(hours=1)]
        )
    return runtime


def job_id(runtime: Runtime) -> str:
    """Return what the provider calls the job."""
    with runtime.store.read() as db:
        (row,) = db.rows("SELECT provider_job_id FROM provider_jobs")
    return str(row["provider_job_id"])


def is_due(runtime: Runtime) -> bool:
    """Return whether the job is polled next."""
    with runtime.store.read() as db:
        (row,) = db.rows("SELECT next_poll_at FROM provider_jobs")
    return bool(row["next_poll_at"] <= runtime.clock())


def kept(runtime: Runtime) -> int:
    """Return how many deliveries are in the store."""
    with runtime.store.read() as db:
        return len(db.rows("SELECT * FROM webhooks"))


def body_of(runtime: Runtime, kind: str = "batch.completed", job: str | None = None) -> bytes:
    """Return an event as providers write them."""
    return json.dumps({"type": kind, "data": {"id": job or job_id(runtime)}}).encode()


def signed(
    body: bytes, webhook_id: str = "wh_1", *, at: float | None = None, secret: str = SECRET
) -> dict[str, str]:
    """Return the headers of a genuine delivery."""
    moment = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{webhook_id}.{moment}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{signature}",
    }


def deliver(client: TestClient, body: bytes, headers: dict[str, str], to: str = "openai") -> Any:
    """Deliver a webhook, without the service's own token."""
    return client.post(f"/webhooks/{to}", content=body, headers=headers)


def test_a_genuine_webhook_makes_its_job_due(runtime: Runtime) -> None:
    """The next poll asks the provider itself; the webhook is not believed."""
    body = body_of(runtime)

    with asking(runtime, token=TOKEN) as client:
        del client.headers["Authorization"]
        reply = deliver(client, body, signed(body))

    assert (reply.status_code, reply.json()) == (200, {"n_jobs": 1})
    assert is_due(runtime)
    with runtime.store.read() as db:
        assert db.rows("SELECT state FROM provider_jobs") == [{"state": "submitted"}]


def test_geminis_names_for_jobs_are_understood(runtime: Runtime) -> None:
    """With the prefix or without it."""
    with runtime.store.write() as db:
        db.execute("UPDATE provider_jobs SET provider_job_id = 'batches/abc123'")

    with asking(runtime) as client:
        for number, name in enumerate(("abc123", "batches/abc123")):
            body = body_of(runtime, "batch.succeeded", name)
            reply = deliver(client, body, signed(body, f"wh_{number}"), to="gemini")
            assert reply.json() == {"n_jobs": 1}


def test_a_repeated_delivery_does_nothing(runtime: Runtime) -> None:
    """Providers repeat for three days whatever was not answered in time."""
    body = body_of(runtime)

    with asking(runtime) as client:
        replies = [deliver(client, body, signed(body)).json() for _ in range(3)]

    assert replies == [{"n_jobs": 1}, {"n_jobs": 0}, {"n_jobs": 0}]
    assert kept(runtime) == 1


@pytest.mark.parametrize("spoilt", ["body", "id", "old", "new", "secret", "signature", "missing"])
def test_what_is_not_genuine_is_refused_and_leaves_nothing(runtime: Runtime, spoilt: str) -> None:
    """Neither a row nor a sooner poll."""
    body = body_of(runtime)
    headers = signed(body)
    match spoilt:
        case "body":
            body += b" "
        case "id":
            headers["webhook-id"] = "wh_2"
        case "old":
            headers = signed(body, at=time.time() - 301)
        case "new":
            headers = signed(body, at=time.time() + 330)
        case "secret":
            headers = signed(body, secret="whsec_" + base64.b64encode(b"another").decode())
        case "signature":
            headers["webhook-signature"] = "v1,"
        case "missing":
            del headers["webhook-signature"]

    with asking(runtime) as client:
        reply = deliver(client, body, headers)

    assert reply.status_code == 401
    assert kept(runtime) == 0
    assert not is_due(runtime)


def test_a_body_that_is_no_text_is_refused(runtime: Runtime) -> None:
    """Before anything reads it."""
    with asking(runtime) as client:
        assert deliver(client, b"\xff\xfe\x00", signed(b"\xff\xfe\x00")).status_code == 401


@pytest.mark.parametrize(
    "body", [b"{}", b"[1]", b"no json", b'{"type": "batch.completed", "data": {"id": 7}}', b"null"]
)
def test_a_genuine_webhook_that_says_nothing_is_taken_in_silence(
    runtime: Runtime, body: bytes
) -> None:
    """Refusing it would only have it delivered for three days."""
    with asking(runtime) as client:
        reply = deliver(client, body, signed(body))

    assert (reply.status_code, reply.json()) == (200, {"n_jobs": 0})


def test_other_events_and_other_peoples_jobs_move_nothing(runtime: Runtime) -> None:
    """An account may be shared."""
    with asking(runtime) as client:
        for number, body in enumerate(
            (body_of(runtime, "response.completed"), body_of(runtime, job="batch_of_others"))
        ):
            assert deliver(client, body, signed(body, f"wh_{number}")).json() == {"n_jobs": 0}

    assert not is_due(runtime)


def test_a_provider_without_a_secret_has_no_receiver(tmp_path: Path) -> None:
    """Nothing could be verified."""
    with asking(open_engine(tmp_path / "home")) as client:
        reply = deliver(client, b"{}", signed(b"{}"))

    assert reply.status_code == 404
    assert "OPENAI_WEBHOOK_SECRET" in reply.json()["detail"]


def test_deliveries_are_forgotten_after_a_week(runtime: Runtime) -> None:
    """No provider repeats one that long."""
    body = body_of(runtime)
    with asking(runtime) as client:
        deliver(client, body, signed(body, "wh_old"))
        with runtime.store.write() as db:
            db.execute("UPDATE webhooks SET received_at = received_at - INTERVAL 8 DAY")

        deliver(client, body, signed(body, "wh_new"))

    with runtime.store.read() as db:
        assert db.rows("SELECT webhook_id FROM webhooks") == [{"webhook_id": "wh_new"}]

"""Moderation over HTTP: what is provisional says so, and who may only read may not release."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from cj_pipeline.runtime import Runtime
from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from cj_pipeline.tokens import AccessToken, hash_of, new_token
from tests.support.batches import open_engine, run_to_end
from tests.support.people import graded_folder

TOKEN = "a-token-of-sixteen-characters"


@pytest.fixture
def graded(tmp_path: Path) -> tuple[Runtime, str]:
    """A batch whose grades need a sign-off."""
    runtime = open_engine(tmp_path / "home")
    return runtime, run_to_end(runtime, graded_folder(tmp_path / "held", release="needs_sign_off"))


def test_grades_are_decided_and_released_by_name(graded: tuple[Runtime, str]) -> None:
    """And every answer says how they stand."""
    runtime, batch_id = graded
    base = f"/api/v1/batches/{batch_id}"
    with TestClient(create_app(runtime, Access(TOKEN)), base_url="http://localhost") as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert client.get(base).json()["release"] == "provisional"
        assert client.get(f"{base}/grades").json()["provisional"] is True
        queue = client.get(f"{base}/moderation").json()
        assert queue["release"]["is_provisional"]
        student = next(item for item in queue["items"] if not item["is_anchor"])["essay_id"]
        read = client.get(f"{base}/moderation/{student}").json()
        assert read["text"]
        assert read["neighbours"]
        neighbour = read["neighbours"][0]["essay_id"]
        beside = f"/batches/{batch_id}/essays/{student}/beside/{neighbour}"
        shown = client.get(beside)
        assert shown.text.count('<div class="text whole"') == 2
        assert "style-src 'sha256-" in shown.headers["Content-Security-Policy"]
        assert client.get(f"/batches/{batch_id}/essays/{student}/beside/nobody").status_code == 404
        stranger = client.get(beside, headers={"Authorization": "Bearer another-token-of-them"})
        assert stranger.status_code == 401
        assert read["text"] not in stranger.text

        refused = client.post(
            f"{base}/moderation",
            json={"essay_id": student, "decision": "override", "by": "Ms Head", "grade": "Z"},
        )
        assert refused.status_code == 409
        assert "say why" in refused.json()["detail"]
        decided = client.post(
            f"{base}/moderation",
            json={
                "essay_id": student,
                "decision": "override",
                "by": "Ms Head",
                "grade": "1",
                "reason": "off the topic",
            },
        )
        assert decided.status_code == 200
        released = client.post(f"{base}/release", json={"by": "Ms Head"})
        assert released.json()["status"] == "released"
        grades = client.get(f"{base}/grades").json()
        assert grades["provisional"] is False
        mine = next(row for row in grades["items"] if row["essay_id"] == student)
        assert (mine["grade"], mine["decision"]) == ("1", "override")
        assert client.get(base).json()["release"] == "released"
        back = client.post(f"{base}/release", json={"by": "Ms Head", "withdraw": True})
        assert back.status_code == 409
        assert client.get(f"{base}/moderation/nobody").status_code == 404
        assert "Moderation" in client.get(f"/moderation/{batch_id}").text


def test_a_token_to_read_may_neither_decide_nor_release(graded: tuple[Runtime, str]) -> None:
    """That is a scope of its own."""
    runtime, batch_id = graded
    base = f"/api/v1/batches/{batch_id}"
    token = new_token()
    reader = AccessToken(
        "reader", hash_of(token) or "", frozenset({"read"}), ("*",), date(2099, 1, 1)
    )
    access = Access(TOKEN, tokens=lambda: [reader])
    with TestClient(create_app(runtime, access), base_url="http://localhost") as client:
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get(f"{base}/moderation").status_code == 200
        assert client.post(f"{base}/release", json={"by": "x"}).status_code == 403
        decision = {"essay_id": "student-001", "decision": "accept", "by": "x"}
        assert client.post(f"{base}/moderation", json=decision).status_code == 403

"""Every route that is told of an essay takes the name it was handed in under, as commands do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel

from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from tests.support.people import graded_batch

TOKEN = "a-token-of-sixteen-characters"
ASKED = "Zoë O'Hara #2"
"""What the essay under test was handed in as."""
ALIKE = ("student-002", "student-003")

OF_NO_ESSAY = {"batch_id", "assignment_id", "correlation_id"}
"""What else ends in `_id`."""

ESSAYS: Mapping[tuple[str, str], str] = {
    ("GET", "/api/v1/batches/{batch_id}/moderation/{essay_id}"): "essay_id",
    ("POST", "/api/v1/batches/{batch_id}/moderation"): "essay_id",
    ("GET", "/batches/{batch_id}/essays/{essay_id}/beside/{other_id}"): "essay_id other_id",
}
"""What of each route names an essay."""

DECISION = {"decision": "accept", "by": "Ms Head"}
"""What else a body holds."""


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """A served batch with two essays by one name, and one by a name of its own."""
    runtime, _ = graded_batch(tmp_path / "home")
    with runtime.store.write() as db:
        for essay_id, given in {"student-001": ASKED, **dict.fromkeys(ALIKE, "Anna")}.items():
            db.execute("UPDATE essays SET given_id = ? WHERE essay_id = ?", [given, essay_id])
    return create_app(runtime, Access(TOKEN))


def _routes(router: APIRouter) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from _routes(inner)


def _told(dependant: Dependant) -> Iterator[str]:
    """Yield the names of all that a route is told: in its path, its query and its body."""
    for field in (*dependant.path_params, *dependant.query_params, *dependant.header_params):
        yield field.name
    for field in dependant.body_params:
        yield from (field.name, *_fields(field.field_info.annotation))
    for each in dependant.dependencies:
        yield from _told(each)


def _fields(kind: Any) -> Iterator[str]:
    for part in (kind, *getattr(kind, "__args__", ())):
        if isinstance(part, type) and issubclass(part, BaseModel):
            for name, field in part.model_fields.items():
                yield from (name, *_fields(field.annotation))


def _names_essay(name: str) -> bool:
    return name not in OF_NO_ESSAY and ("essay" in name or name.endswith("_id"))


def _ask(app: FastAPI, route: tuple[str, str], typed: str) -> httpx2.Response:
    """Ask a route for an essay by what a person typed; for another one where it takes two."""
    method, path = route
    first, *others = ESSAYS[route].split()
    given = {"batch_id": "graded", first: typed} | dict.fromkeys(others, "student-004")
    body = {name: text for name, text in given.items() if f"{{{name}}}" not in path}
    for name, text in given.items():
        path = path.replace(f"{{{name}}}", quote(text, safe=""))
    with TestClient(app, base_url="http://localhost") as client:
        return client.request(
            method,
            path,
            json=DECISION | body if body else None,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )


def test_no_route_that_is_told_of_an_essay_is_forgotten(app: FastAPI) -> None:
    """What is tested below is all there is."""
    found = {
        (method, route.path): " ".join(filter(_names_essay, _told(route.dependant)))
        for route in _routes(app.router)
        for method in route.methods
    }

    assert {route: names for route, names in found.items() if names} == ESSAYS


@pytest.mark.parametrize("route", ESSAYS, ids=" ".join)
def test_an_essay_is_taken_by_the_name_it_was_handed_in_under(
    app: FastAPI, route: tuple[str, str]
) -> None:
    """As by its id; and what is no one essay's is refused by name."""
    by_id = _ask(app, route, "student-001")
    by_name = _ask(app, route, ASKED)
    several = _ask(app, route, "Anna")
    unknown = _ask(app, route, "Nobody Known")

    assert by_id.status_code == by_name.status_code == 200
    assert _without_decisions(by_name) == _without_decisions(by_id)
    assert several.status_code == 404
    assert several.json()["detail"] == (
        "Batch 'graded' has 2 essays by 'Anna': say which, by its id: {}.".format(", ".join(ALIKE))
    )
    assert unknown.status_code in {404, 409}
    assert "no essay 'Nobody Known'" in unknown.json()["detail"]


def _without_decisions(answer: httpx2.Response) -> object:
    """Return what an answer says but for when something was decided, and how often."""
    if "json" not in answer.headers["content-type"]:
        return answer.text
    shown = answer.json()
    for item in shown.get("items", []):
        assert item.pop("decision", None) is None or item["essay_id"] == "student-001"
    return shown

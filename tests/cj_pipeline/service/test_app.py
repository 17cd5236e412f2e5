"""The API against its own OpenAPI document, asked by schemathesis whatever it can think of."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    positive_data_acceptance,
    response_schema_conformance,
)

from cj_pipeline.service.app import create_app
from cj_pipeline.service.auth import Access
from cj_pipeline.tokens import SCOPES, AccessToken
from tests.support.finished_batches import SPRING
from tests.support.served_runtime import TOKEN, home_with_batches, token_for

EXAMPLES = 12
"""Per operation; each is a request with a look at the store."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The service over three ended batches, with a token."""
    engine = home_with_batches(tmp_path_factory.mktemp("home"))
    return create_app(engine, Access(TOKEN, tokens=lambda: [known for _, known in SCOPED]))


SCOPED = [token_for(scope, batches=("arg*",)) for scope in SCOPES if scope != "admin"]
"""Tokens for one scope each, and for some of the batches."""


OPERATIONS = (
    "DELETE /api/v1/batches/{batch_id}",
    "DELETE /session",
    "GET /api/v1/batches",
    "GET /api/v1/batches/{batch_id}",
    "GET /api/v1/batches/{batch_id}/artefact",
    "GET /api/v1/batches/{batch_id}/comparisons",
    "GET /api/v1/batches/{batch_id}/grades",
    "GET /api/v1/batches/{batch_id}/moderation",
    "GET /api/v1/batches/{batch_id}/moderation/{essay_id}",
    "GET /api/v1/batches/{batch_id}/report",
    "GET /api/v1/batches/{batch_id}/scores",
    "GET /healthz",
    "GET /metrics",
    "POST /api/v1/batches",
    "POST /api/v1/batches/{batch_id}/moderation",
    "POST /api/v1/batches/{batch_id}/release",
    "POST /session",
    "POST /webhooks/{provider}",
)


WITHOUT_INPUT = {"DELETE /session", "GET /healthz", "GET /metrics"}
"""Nothing about such a request can be wrong."""


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in OPERATIONS
        for mode in GenerationMode
        if mode.is_positive or label not in WITHOUT_INPUT
    ],
)
def test_the_service_does_what_its_document_says(
    app: FastAPI, label: str, mode: GenerationMode
) -> None:
    """No answer that is not described, and none that is a crash, to what fits and what does not."""
    found = {each.ok().label: each.ok() for each in described(app).get_all_operations()}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=found[label].as_strategy(mode))
    def check(case: Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=left_out(label)
        )

    check()


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_token_gets_from_an_operation_what_it_is_not_for(app: FastAPI, label: str) -> None:
    """Whatever the request: what is described, no crash, and nothing of a batch of others."""
    found = {each.ok().label: each.ok() for each in described(app).get_all_operations()}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=found[label].as_strategy(GenerationMode.POSITIVE), bearer=st.sampled_from(SCOPED))
    def check(case: Case, bearer: tuple[str, AccessToken]) -> None:
        if "batch_id" in case.path_parameters:
            case.path_parameters["batch_id"] = SPRING
        token, _ = bearer
        reply = case.call(headers={"Authorization": f"Bearer {token}"})

        case.validate_response(reply, checks=(not_a_server_error, response_schema_conformance))
        assert SPRING not in reply.text.replace(f"'{SPRING}'", "")
        assert "pupil-" not in reply.text

    check()


def left_out(label: str) -> list[Any]:
    """A batch may fit the schema and still have problems, which only reading all of it shows."""
    return [positive_data_acceptance] if label == "POST /api/v1/batches" else []


def described(app: FastAPI) -> schemathesis.BaseSchema:
    """Return the document as the service itself gives it."""
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_every_operation_is_tried(app: FastAPI) -> None:
    """One that is added has to be added above, too."""
    found = {each.ok().label for each in described(app).get_all_operations()}

    assert found == set(OPERATIONS)


def test_the_document_describes_both_ways_to_hand_in(app: FastAPI) -> None:
    """JSON and a zip file."""
    operation = app.openapi()["paths"]["/api/v1/batches"]["post"]

    assert set(operation["requestBody"]["content"]) == {"application/json", "application/zip"}
    assert "BatchIn" in app.openapi()["components"]["schemas"]


def test_every_problem_is_described_as_one(app: FastAPI) -> None:
    """Clients can rely on one shape of error."""
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert set(answer["content"]) == {"application/problem+json"}

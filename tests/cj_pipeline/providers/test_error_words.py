"""What a service's errors mean is told by its definition, where the usual words do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    OutOfCreditError,
    ProviderUnavailableError,
)
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.judging.provider_definitions import ErrorWords, provider_definition
from cj_pipeline.providers.registry import open_parser
from cj_pipeline.providers.transport import Call, ErrorAnswer, failed_call

WORDS = ErrorWords(
    out_of_credit=("wallet is dry",), rate_limit=("slow down",), not_for_plan=("not on the free",)
)
CALL = Call("lab", "judge one comparison", creates=True, words=WORDS)


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "Your WALLET is dry.", OutOfCreditError),
        (403, "Slow down, please", ProviderUnavailableError),
        (404, "This model is not on the free plan", AccountRefusedError),
    ],
)
def test_an_error_means_what_its_definition_says(
    status: int, message: str, error: type[CJError]
) -> None:
    """Whatever its status: services differ in that as well."""
    answer = ErrorAnswer(status, None, message)

    assert type(failed_call(CALL, answer)) is error
    assert type(failed_call(Call("lab", "x"), answer)) is not error


def test_what_a_plan_has_not_is_no_bad_key() -> None:
    """Groq answers 403: a new key would not help."""
    words = provider_definition("groq").error_words
    answer = ErrorAnswer(403, "not_available_for_plan", "Batches need the developer plan.")

    told = str(failed_call(Call("groq", "create a batch", creates=True, words=words), answer))

    assert "choose another model, or another plan" in told
    assert "key" not in told


@pytest.mark.parametrize(
    ("message", "code", "may_retry"),
    [
        ("wallet is dry", "out_of_credit", True),
        ("slow down", "status_403", True),
        ("not on the free plan", "status_403", False),
        ("no", "status_403", False),
    ],
)
def test_rows_of_a_batch_are_read_by_the_same_words(
    tmp_path: Path, message: str, code: str, *, may_retry: bool
) -> None:
    """A row without credit waits, and is not counted as the request's fault."""
    (tmp_path / "providers").mkdir()
    own = {"name": "lab", "like": "groq", "error_words": WORDS.model_dump(mode="json")}
    (tmp_path / "providers" / "lab.yaml").write_text(yaml.safe_dump(own))
    (tmp_path / "mine.yaml").write_text("name: mine\nprovider: lab\nmodel: m\n")
    judge = load_judge("mine", tmp_path, tmp_path / "providers")
    body = {"error": {"message": message}}
    row = {"custom_id": "r1", "response": {"status_code": 403, "body": body}, "error": None}

    reply = open_parser(judge)(json.dumps(row))

    assert (reply.error_code, reply.may_retry) == (code, may_retry)

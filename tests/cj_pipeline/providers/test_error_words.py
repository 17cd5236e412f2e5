"""What a service's errors mean is told by its definition, where the usual words do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    OutOfCreditError,
    ProviderUnavailableError,
)
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.judging.prompts import Prompt
from cj_pipeline.judging.provider_definitions import ErrorWords, provider_definition
from cj_pipeline.providers.registry import open_parser, open_provider
from cj_pipeline.providers.transport import Call, ErrorAnswer, failed_call
from tests.support.answering import answering

WORDS = ErrorWords(
    out_of_credit=("wallet is dry",), rate_limit=("slow down",), not_for_plan=("not on the free",)
)
PROMPT = Prompt("system", "prefix", "one", "two", "0" * 16)
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


ROWS: dict[str, tuple[str, Callable[[str], object]]] = {
    "openai": (
        "groq",
        lambda words: {
            "response": {"status_code": 403, "body": {"error": {"message": words}}},
            "error": None,
        },
    ),
    "anthropic": (
        "anthropic",
        lambda words: {
            "result": {
                "type": "errored",
                "error": {"error": {"type": "invalid_request_error", "message": words}},
            }
        },
    ),
    "gemini": ("gemini", lambda words: {"error": {"code": 3, "message": words}}),
}
"""A row that failed, by wire, as the service a definition is like sends it."""


@pytest.mark.parametrize(
    ("message", "is_out_of_credit", "may_retry"),
    [
        ("wallet is dry", True, True),
        ("slow down", False, True),
        ("not on the free plan", False, False),
        ("no", False, False),
    ],
)
@pytest.mark.parametrize("wire", ROWS)
def test_rows_of_a_batch_are_read_by_the_same_words(
    tmp_path: Path, wire: str, message: str, *, is_out_of_credit: bool, may_retry: bool
) -> None:
    """A row without credit waits, and is not counted as the request's fault."""
    like, row = ROWS[wire]

    reply = open_parser(_judge(tmp_path, like))(json.dumps(row(message)))

    assert (reply.error_code == "out_of_credit", reply.may_retry) == (is_out_of_credit, may_retry)


@pytest.mark.parametrize(
    ("message", "error"),
    [("Your wallet is dry.", OutOfCreditError), ("Not on the free plan", AccountRefusedError)],
)
@pytest.mark.parametrize("like", ["groq", "anthropic", "gemini"])
def test_a_single_call_that_concerns_all_stops_all(
    tmp_path: Path, like: str, message: str, error: type[CJError]
) -> None:
    """A 400 is one request's own fault, unless the service's words say otherwise."""
    judge = _judge(tmp_path, like)
    body = {"error": {"message": message, "type": "invalid_request_error", "code": 400}}

    with answering(json.dumps(body), status=400) as address:
        provider = open_provider(
            replace(judge, base_url=address), {judge.key_variable or "": "k"}, tmp_path
        )
        request = provider.build_request(PROMPT, judge, "r1")
        with pytest.raises(error):
            provider.single(request, timeout_s=5)


def _judge(folder: Path, like: str) -> Judge:
    (folder / "providers").mkdir()
    own = {"name": "lab", "like": like, "error_words": WORDS.model_dump(mode="json")}
    (folder / "providers" / "lab.yaml").write_text(yaml.safe_dump(own))
    (folder / "mine.yaml").write_text(
        "name: mine\nprovider: lab\nmodel: m\ntemplate: more-convincing-1\n"
    )
    return load_judge("mine", folder, folder / "providers")

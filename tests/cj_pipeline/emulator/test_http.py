"""Whatever is sent, the answer is the API's own error and never a crash."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cj_pipeline.emulator import in_process_client
from tests.support.emulator_calls import chat, emulator_config, prompt

CONTENTS = [{"role": "user", "parts": [{"text": prompt()}]}]
MESSAGE = {
    "model": "quality",
    "max_tokens": 300,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": prompt()}],
    "tool_choice": {"type": "tool", "name": "verdict"},
}
BATCH = {
    "input_file_id": "file-1",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"key": "value"},
    "output_expires_after": {"anchor": "created_at", "seconds": 3600},
}
INLINE = {"requests": {"requests": [{"request": {"contents": CONTENTS}, "metadata": {"key": "r"}}]}}
SENT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {**chat(), "max_completion_tokens": 300}),
    ("/v1/responses", {"model": "quality", "input": prompt(), "max_output_tokens": 300}),
    ("/v1/batches", BATCH),
    ("/v1/messages", MESSAGE),
    ("/v1/messages/batches", {"requests": [{"custom_id": "r", "params": MESSAGE}]}),
    (
        "/v1beta/models/quality:generateContent",
        {"contents": CONTENTS, "generationConfig": {"maxOutputTokens": 300}},
    ),
    (
        "/v1beta/models/quality:batchGenerateContent",
        {"batch": {"displayName": "key", "inputConfig": INLINE}},
    ),
    ("/upload/v1beta/files", {"file": {"displayName": "key"}}),
]
ODD = st.sampled_from([None, -1, 0, 1.5, True, "", "x", [], [1], [None], [{}], {}, {"a": 1}])


def replace_somewhere(data: st.DataObject, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with something odd in one place."""
    changed = copy.deepcopy(body)
    node: Any = changed
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(list(keys)))
        goes_deeper = isinstance(node[key], (dict, list)) and node[key]
        if goes_deeper and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(ODD)
        return changed


@pytest.fixture(scope="module")
def client() -> Any:
    """A plain HTTP client over one emulator."""
    return in_process_client(emulator_config())


@pytest.mark.parametrize(("path", "body"), SENT)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_odd_requests_are_answered(
    client: Any, path: str, body: dict[str, Any], data: st.DataObject
) -> None:
    """One value of a good request is replaced by an odd one."""
    kind = "x-goog-api-key" if "v1beta" in path else "x-api-key"

    answer = client.post(f"http://e{path}", json=replace_somewhere(data, body), headers={kind: "k"})

    assert answer.status_code in {200, 400, 404}
    assert answer.json() is not None

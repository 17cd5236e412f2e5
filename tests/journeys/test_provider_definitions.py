"""One batch on every shipped definition that speaks chat completions, over HTTP, at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from cj_pipeline.judging.prompts import read_essays
from cj_pipeline.judging.provider_definitions import known_definitions, provider_definition
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.batches import open_engine, run_to_end, write_batch

LIKE = tuple(
    each.name
    for each in known_definitions()
    if each.spoken[0] == "chat_completions" and each.wire == "openai"
)
COST_USD = 0.0123
"""What the server says that each answer of the service like OpenRouter cost."""


class Server(ThreadingHTTPServer):
    """Answers chat completions under the name of each service, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: dict[str, list[tuple[dict[str, str], dict[str, Any]]]] = {}


class Handler(BaseHTTPRequestHandler):
    """Prefers the longer essay."""

    def do_POST(self) -> None:
        """Judge one pair."""
        server = self.server
        assert isinstance(server, Server)
        service = self.path.split("/")[1]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.seen.setdefault(service, []).append((headers, body))
        essays = read_essays(body["messages"][-1]["content"])
        assert essays is not None
        winner = "A" if len(essays[0]) >= len(essays[1]) else "B"
        verdict = {"winner": winner, "confidence": 4, "justification": "Longer."}
        answer = {
            "id": "chatcmpl-1",
            "model": body["model"],
            "choices": [
                {"finish_reason": "stop", "message": {"content": json.dumps(verdict)}, "index": 0}
            ],
            "usage": {
                "prompt_tokens": 600,
                "completion_tokens": 20,
                "total_tokens": 620,
                "cost": COST_USD,
            },
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The services, each below a folder of its own name."""
    listening = Server()
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield listening
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope="module")
def history(server: Server, tmp_path_factory: pytest.TempPathFactory) -> BatchHistory:
    """A batch of six pairs, judged by all."""
    home = tmp_path_factory.mktemp("definitions")
    (home / "home" / "providers").mkdir(parents=True)
    folder = write_batch(
        home / "spring",
        n_students=4,
        settings={
            "judges": [f"judge-{name}" for name in LIKE],
            "llm_batching_mode": "per_request",
            "all_at_once": True,
            "common_pairs": 1.0,
            "max_pairwise_comparisons": 6 * len(LIKE),
        },
    )
    (folder / "judges").mkdir()
    price = {"input": 1, "output": 1, "source": "a contract", "as_of": "2026-11-01"}
    for name in LIKE:
        own = {
            "name": f"our-{name}",
            "like": name,
            "base_url": f"http://127.0.0.1:{server.server_address[1]}/{name}/v1",
        }
        (home / "home" / "providers" / f"our-{name}.yaml").write_text(yaml.safe_dump(own))
        judge: dict[str, Any] = {"name": f"judge-{name}", "provider": f"our-{name}", "model": "m"}
        if not provider_definition(name).free:
            judge["price"] = price
        (folder / "judges" / f"judge-{name}.yaml").write_text(yaml.safe_dump(judge))
    keys = {
        variable: f"key-of-{variable}"
        for name in LIKE
        if (variable := provider_definition(name).key_variable) is not None
    }
    engine = open_engine(home / "home", keys, is_attended=False)
    batch_id = run_to_end(engine, folder)
    with engine.store.read() as db:
        return read_history(db, batch_id)


@pytest.mark.parametrize("name", LIKE)
def test_every_pair_is_judged(history: BatchHistory, name: str) -> None:
    """Also where nobody attends: the addresses are the installation's."""
    assert history.batch["state"] == "succeeded"
    (judge_id,) = [row["judge_id"] for row in history.judges if row["name"] == f"judge-{name}"]
    assert len([row for row in history.succeeded if row["judge_id"] == judge_id]) == 6
    assert {row["provider"] for row in history.jobs if row["judge_id"] == judge_id} == {
        f"our-{name}"
    }


@pytest.mark.parametrize("name", LIKE)
def test_its_key_comes_in_its_header_and_nobody_elses(
    server: Server, history: BatchHistory, name: str
) -> None:
    """A key that goes to another service is lost."""
    assert history.batch["state"] == "succeeded"
    definition = provider_definition(name)
    key = f"key-of-{definition.key_variable}" if definition.key_variable else "none-needed"
    for headers, _ in server.seen[name]:
        if definition.key_header:
            assert headers[definition.key_header] == key
            assert "authorization" not in headers
        else:
            assert headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("name", LIKE)
def test_json_and_the_limit_are_asked_for_in_its_words(
    server: Server, history: BatchHistory, name: str
) -> None:
    """What a service does not know it refuses, or leaves out in silence."""
    assert history.batch["state"] == "succeeded"
    definition = provider_definition(name)
    for _, body in server.seen[name]:
        assert {"max_tokens", "max_completion_tokens"} & set(body) == {definition.answer_limit}
        assert body["response_format"]["type"] == definition.structured
        assert definition.extra_body.items() <= body.items()


@pytest.mark.parametrize("name", LIKE)
def test_its_bill_is_what_it_states_or_its_tokens_at_the_judges_price(
    history: BatchHistory, name: str
) -> None:
    """A cost in an answer of another service is not believed; a free server costs nothing."""
    (judge_id,) = [row["judge_id"] for row in history.judges if row["name"] == f"judge-{name}"]
    definition = provider_definition(name)
    expected = COST_USD if definition.states_cost else 0.0 if definition.free else 620 / 1e6
    for row in history.attempts:
        if row["judge_id"] == judge_id:
            assert row["cost_usd"] == pytest.approx(expected)

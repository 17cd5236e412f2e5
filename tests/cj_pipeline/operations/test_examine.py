"""A judge that cannot judge is found out by a few calls, whatever its server does instead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cj_pipeline.cli import app
from cj_pipeline.commands.terminal.home import open_runtime
from cj_pipeline.judging.judges import Judge, load_judge
from cj_pipeline.operations.examine import CALLS_AT_MOST, Examination, examine
from cj_pipeline.providers.registry import open_provider

VERDICT = json.dumps({"winner": "A", "confidence": 4, "justification": "Clearer."})


class Server(ThreadingHTTPServer):
    """A server of one model; `quirks` bends it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.quirks: dict[str, Any] = {}
        self.n_calls = 0

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """Speaks chat completions."""

    @property
    def quirks(self) -> dict[str, Any]:
        """What bends its server."""
        assert isinstance(self.server, Server)
        return self.server.quirks

    def do_GET(self) -> None:
        """List the models."""
        if self.quirks.get("no_models"):
            self._send(404, {"error": {"message": "Not Found"}})
        else:
            self._send(200, {"data": [{"id": "model-a"}, {"id": "model-b"}]})

    def do_POST(self) -> None:
        """Judge, or do what the quirks say."""
        assert isinstance(self.server, Server)
        self.server.n_calls += 1
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind = body.get("response_format", {}).get("type", "prompt")
        if status := self.quirks.get("status"):
            self._send(status, {"error": {"message": "stub", "type": "stub"}})
        elif self.quirks.get("stream_only") and not body.get("stream"):
            self._send(400, {"error": {"message": "Only streaming is supported"}})
        elif kind in self.quirks.get("refuses", ()):
            self._send(400, {"error": {"message": f"{kind} is not supported", "code": None}})
        else:
            n_read = sum(len(message["content"].encode()) for message in body["messages"])
            n_read = min(n_read, self.quirks.get("window", n_read))
            usage = {"prompt_tokens": n_read // 4 + 50, "completion_tokens": 30}
            usage["total_tokens"] = sum(usage.values())
            choice = {
                "finish_reason": self.quirks.get("finish", "stop"),
                "message": {"content": self.quirks.get("text", VERDICT)},
            }
            answer = {"model": body["model"], "choices": [choice], "usage": usage}
            if self.quirks.get("no_usage"):
                del answer["usage"]
            self._send(200, answer)

    def _send(self, status: int, content: dict[str, Any]) -> None:
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that does everything right."""
    listening = Server()
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield listening
    listening.shutdown()
    listening.server_close()


def _judge(folder: Path, address: str, model: str = "model-a", more: str = "") -> Judge:
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(
        f"name: lab\nprovider: openai-compatible\nmodel: {model}\nbase_url: {address}\n{more}"
    )
    return load_judge("lab", folder)


def _examined(server: Server, folder: Path, **more: Any) -> Examination:
    judge = _judge(folder / "judges", server.address, **more)
    return examine(open_provider(judge, {}, folder), judge)


def _standing(examination: Examination) -> dict[str, str]:
    return {each.about: each.standing for each in examination.examined}


def _finding(examination: Examination, about: str) -> str:
    return next(each.finding for each in examination.examined if each.about == about)


def test_a_judge_that_can_judge_is_ready(server: Server, tmp_path: Path) -> None:
    """By few calls, and nothing has to be set."""
    found = _examined(server, tmp_path)

    assert found.is_ready
    assert set(_standing(found).values()) == {"ready"}
    assert found.offered == {}
    assert server.n_calls == found.n_calls <= CALLS_AT_MOST


@pytest.mark.parametrize(
    ("refuses", "manner"),
    [(["json_schema"], "json_object"), (["json_schema", "json_object"], "prompt")],
)
def test_the_manner_that_is_taken_is_offered_as_the_judges_file(
    server: Server, tmp_path: Path, refuses: list[str], manner: str
) -> None:
    """With it set, the same judge is ready."""
    server.quirks["refuses"] = refuses
    found = _examined(server, tmp_path)

    assert not found.is_ready
    assert found.offered["structured"] == manner
    again = _examined(server, tmp_path, more=f"structured: {manner}\n")
    assert again.is_ready


def test_a_server_that_only_streams_is_met_by_a_definition_that_says_so(
    server: Server, tmp_path: Path
) -> None:
    """What is offered works."""
    server.quirks["stream_only"] = True
    found = _examined(server, tmp_path)
    own = tmp_path / "providers"
    own.mkdir()
    (own / "flow.yaml").write_text(
        "name: flow\nlike: openai-compatible\nstreaming: true\nfree: true\n"
    )
    file = tmp_path / "judges" / "lab.yaml"
    file.write_text(file.read_text().replace("openai-compatible", "flow"))
    judge = load_judge("lab", tmp_path / "judges", own)

    again = examine(open_provider(judge, {}, tmp_path), judge)

    assert _standing(found)["structured"] == "problem"
    assert "like: openai-compatible` with `streaming: true`" in _finding(found, "structured")
    assert again.is_ready


def test_a_server_that_cuts_prompts_is_caught_before_a_batch(
    server: Server, tmp_path: Path
) -> None:
    """It says nothing of it, and judges parts of essays."""
    server.quirks["window"] = 4_000
    found = _examined(server, tmp_path)

    assert _standing(found)["prompt window"] == "problem"
    assert "cuts its prompts" in _finding(found, "prompt window")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"<think>Hm.</think>\n{VERDICT}", "a block of thoughts"),
        (f"```json\n{VERDICT}\n```", "a fence"),
    ],
)
def test_what_is_taken_off_is_told(server: Server, tmp_path: Path, text: str, told: str) -> None:
    """It is no problem, and good to know."""
    server.quirks["text"] = text
    found = _examined(server, tmp_path)

    assert found.is_ready
    assert told in _finding(found, "answer")


@pytest.mark.parametrize("text", ["Essay A is better.", f"Here: {VERDICT}", ""])
def test_an_answer_without_a_verdict_is_a_problem(
    server: Server, tmp_path: Path, text: str
) -> None:
    """Forty of them would be paid for in vain."""
    server.quirks["text"] = text

    assert _standing(_examined(server, tmp_path))["answer"] == "problem"


def test_reasoning_that_uses_up_the_limit_has_a_higher_one_offered(
    server: Server, tmp_path: Path
) -> None:
    """Four times as high."""
    server.quirks |= {"text": "<think>Well", "finish": "length"}
    found = _examined(server, tmp_path)

    assert "reasoning" in _finding(found, "answer")
    assert found.offered["settings"]["max_output_tokens"] == 4 * 1024


def test_a_model_that_is_not_there_is_named_with_the_nearest(
    server: Server, tmp_path: Path
) -> None:
    """And a 404 says what to set."""
    found = _examined(server, tmp_path, model="model-c")
    assert "did you mean 'model-" in _finding(found, "models")

    server.quirks |= {"status": 404, "no_models": True}
    found = _examined(server, tmp_path, model="model-c")
    assert not found.is_ready
    assert "set model to one that" in _finding(found, "server")


def test_missing_usage_is_told(server: Server, tmp_path: Path) -> None:
    """Then it cannot be seen either whether prompts are cut."""
    server.quirks["no_usage"] = True
    found = _examined(server, tmp_path)

    assert _standing(found)["prompt window"] == "warning"


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_server_that_does_not_judge_is_not_ready(
    server: Server, tmp_path: Path, status: int
) -> None:
    """Nor is a dead one."""
    server.quirks["status"] = status
    assert not _examined(server, tmp_path).is_ready

    dead = _judge(tmp_path / "judges", "http://127.0.0.1:9/v1")
    found = examine(open_provider(dead, {}, tmp_path), dead)
    assert _standing(found) == {"server": "problem"}


def test_the_command_says_it_in_one_table_or_as_json(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exit code for scripts."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    _judge(tmp_path / "judges", server.address)
    ask = ["judge", "examine", "lab", "--judges", str(tmp_path / "judges")]

    shown = CliRunner().invoke(app, ask)
    server.quirks["refuses"] = ["json_schema"]
    told = CliRunner().invoke(app, [*ask, "--json"])

    assert shown.exit_code == 0
    assert "prompt window" in shown.output
    assert told.exit_code == 1
    assert json.loads(told.output)["offered"]["structured"] == "json_object"


PRICED = "price: {input: 10, output: 10, source: a contract, as_of: 2026-11-01}\n"


@pytest.mark.parametrize(
    ("quirks", "is_settled"),
    [({}, True), ({"refuses": ["json_schema"]}, True), ({"no_usage": True}, False)],
)
def test_what_an_examination_cost_is_settled_where_every_answer_tells_it(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quirks: dict[str, Any],
    is_settled: bool,
) -> None:
    """Its ceiling would else count against the day, many times what was spent."""
    monkeypatch.setenv("CJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAB_API_KEY", "k")
    server.quirks.update(quirks)
    _judge(tmp_path / "judges", server.address, more=f"key_variable: LAB_API_KEY\n{PRICED}")

    ask = ["judge", "examine", "lab", "--judges", str(tmp_path / "judges"), "--yes"]
    shown = CliRunner().invoke(app, ask)

    with open_runtime().store.read() as db:
        (spent,) = db.rows("SELECT billed_usd, reserved_usd FROM spent_on_trials")
    assert "lab" in shown.output
    assert (spent["billed_usd"] is not None) == is_settled
    assert (spent["billed_usd"] or 0) < spent["reserved_usd"]

"""Result files as they should not come, each with what must be made of it.

A case is a shard's worth of rows in one provider's dialect: in any order, some missing, twice,
foreign, garbled, failed in every way a provider has been seen to tell it, and the file cut off.
Everything is drawn from a seed, so a case that fails can be made again by its number.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome, custom_id
from cj_pipeline.providers.base import RawLine
from cj_pipeline.providers.transport import raw_lines

KEY = "0123456789abcdef" * 4
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 20
ANY = frozenset(RequestOutcome)

Row = dict[str, Any]
Dialect = Callable[[str, Mapping[str, Any]], Row]


@dataclass(frozen=True)
class Expected:
    """What may be made of a request; its winner where that is certain, and whether it was paid."""

    outcomes: frozenset[RequestOutcome]
    winner: str | None = None
    is_paid: bool | None = None


@dataclass
class FuzzedResult:
    """One result: its lines as they come, and what must be made of each request."""

    asked: set[str]
    lines: list[RawLine] = field(default_factory=list)
    expected: dict[str, Expected] = field(default_factory=dict)


def verdict(winner: str) -> str:
    """Return a judge's answer."""
    return json.dumps({"winner": winner, "confidence": 3, "justification": 'so: \u2028 {"å"}\n'})


def _chat(name: str, says: Mapping[str, Any]) -> Row:
    message = {"role": "assistant", "content": says.get("text"), "refusal": says.get("refusal")}
    return _openai_row(
        name,
        {
            "object": "chat.completion",
            "model": "quality",
            "choices": [
                {"index": 0, "finish_reason": says.get("finish", "stop"), "message": message}
            ],
            "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS},
        },
        says,
    )


def _responses(name: str, says: Mapping[str, Any]) -> Row:
    finish = says.get("finish", "stop")
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish)
    part = (
        {"type": "refusal", "refusal": says["refusal"]}
        if says.get("refusal")
        else {"type": "output_text", "text": says.get("text")}
    )
    return _openai_row(
        name,
        {
            "object": "response",
            "model": "quality",
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [{"type": "message", "role": "assistant", "content": [part]}],
            "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
        },
        says,
    )


def _openai_row(name: str, body: Row, says: Mapping[str, Any]) -> Row:
    status = says.get("status", 200)
    if says.get("silent"):
        response: Row | None = None
    elif status != 200:
        error = {"message": "no", "type": "invalid_request_error" if status == 400 else "server"}
        response = {"status_code": status, "request_id": "r", "body": {"error": error}}
    else:
        response = {"status_code": 200, "request_id": "r", "body": body}
    if says.get("as_string") and response is not None:
        response["body"] = json.dumps(response["body"])
    return {"id": "batch_req", "custom_id": name, "response": response, "error": None}


def _messages(name: str, says: Mapping[str, Any]) -> Row:
    status = says.get("status", 200)
    if says.get("silent"):
        result: Row = {"type": "errored"}
    elif status != 200:
        kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(status, "api_error")
        error = {"type": "error", "error": {"type": kind, "message": "no"}}
        result = {"type": "errored", "error": error}
    else:
        stops = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        stop = "refusal" if says.get("refusal") else stops[says.get("finish", "stop")]
        result = {
            "type": "succeeded",
            "message": {
                "type": "message",
                "role": "assistant",
                "model": "quality",
                "content": [{"type": "text", "text": says.get("text")}],
                "stop_reason": stop,
                "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
            },
        }
    return {"custom_id": name, "result": result}


def _gemini(name: str, says: Mapping[str, Any]) -> Row:
    status = says.get("status", 200)
    if says.get("silent"):
        return {"metadata": {"key": name}}
    if status != 200:
        code = {400: 3, 429: 8}.get(status, 13)
        return {"error": {"code": code, "message": "no"}, "metadata": {"key": name}}
    finishes = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
    finish = "SAFETY" if says.get("refusal") else finishes[says.get("finish", "stop")]
    return {
        "response": {
            "candidates": [
                {"content": {"parts": [{"text": says.get("text")}]}, "finishReason": finish}
            ],
            "usageMetadata": {
                "promptTokenCount": PROMPT_TOKENS,
                "candidatesTokenCount": COMPLETION_TOKENS,
            },
        },
        "metadata": {"key": name},
    }


DIALECTS: dict[str, Dialect] = {
    "quality": _chat,
    "quality-responses": _responses,
    "quality-messages": _messages,
    "quality-gemini": _gemini,
}
"""The row of each dialect, under the judge that speaks it."""

_REFUSED = {
    "quality": RequestOutcome.REFUSAL,
    "quality-responses": RequestOutcome.REFUSAL,
    "quality-messages": RequestOutcome.REFUSAL,
    "quality-gemini": RequestOutcome.CONTENT_FILTER,
}
_FILTERED = dict.fromkeys(DIALECTS, RequestOutcome.CONTENT_FILTER) | {
    "quality-messages": RequestOutcome.REFUSAL  # Anthropic's filter has no other word.
}
_JUNK = ("null", "[]", "{}", '"text"', "0", "{", "[[[[", "\x00\x01", "Infinity", '{"custom_id": 7}')
_NOT_A_VERDICT = ("A", "{}", '{"winner": "C"}', verdict("A")[:-2], "", verdict("A") + verdict("B"))


def fuzzed_result(judge: str, number: int) -> FuzzedResult:
    """Return case `number` for a judge's dialect."""
    rng = random.Random(f"{judge}:{number}")  # noqa: S311 - repeatable, not secret
    names = [custom_id(KEY, f"0123456789-{n:07d}", 1) for n in range(1, rng.randint(1, 12) + 1)]
    case = FuzzedResult(set(names))
    rows: list[tuple[str, bytes]] = []
    for name in names:
        rows += [(name, line) for line in _row(case, DIALECTS[judge], judge, name, rng)]
    for _ in range(rng.choice((0, 0, 1, 3))):
        junk = rng.choice(_JUNK) if rng.random() < 0.7 else _foreign(DIALECTS[judge], rng)
        rows.append(("", junk.encode()))
    rng.shuffle(rows)
    files: dict[str, list[tuple[str, bytes]]] = {"output": [], "error": []}
    for row in rows:
        # Providers have been seen to put a row into either file.
        files["error" if rng.random() < 0.2 else "output"].append(row)
    for source, content in files.items():
        _write(case, source, content, rng)
    return case


def _row(
    case: FuzzedResult, dialect: Dialect, judge: str, name: str, rng: random.Random
) -> list[bytes]:
    """Return the lines of one request, and note what must be made of it."""
    winner = rng.choice("AB")
    kind = rng.randrange(16)
    says, outcome = _answer(judge, kind, verdict(winner), rng)
    is_paid = outcome not in {RequestOutcome.MISSING, RequestOutcome.PROVIDER_ERROR}
    expected = Expected(
        frozenset({outcome}), winner if outcome is RequestOutcome.SUCCEEDED else None, is_paid
    )
    copies = {0: 0, 1: rng.randint(2, 4)}.get(kind, 1)
    line = json.dumps(dialect(name, says), ensure_ascii=rng.random() < 0.5).encode()
    if kind == 10:
        case.expected[name] = Expected(frozenset({RequestOutcome.MISSING}), is_paid=False)
        return [line[: rng.randrange(1, len(line))]]
    if kind == 11:
        # One byte of it is another: whatever it says now, it is one row with one outcome. Only
        # its name stays: with another request's it would be that one's reply, to anybody.
        case.expected[name] = Expected(ANY)
        while True:
            at = rng.randrange(len(line))
            noisy = line[:at] + bytes([rng.randrange(32, 127)]) + line[at + 1 :]
            if name.encode() in noisy:
                return [noisy]
    if kind == 12:
        other = json.dumps(dialect(name, {"text": verdict("B" if winner == "A" else "A")}))
        case.expected[name] = Expected(frozenset({RequestOutcome.SUCCEEDED}), None, is_paid=True)
        return [line, other.encode()]
    case.expected[name] = expected
    return [line] * copies


def _answer(
    judge: str, kind: int, text: str, rng: random.Random
) -> tuple[Mapping[str, Any], RequestOutcome]:
    """Return what a row of a kind says, and what must be made of it."""
    good = {"text": text}
    return {
        0: (good, RequestOutcome.MISSING),
        2: ({"status": rng.choice((400, 404, 422))}, RequestOutcome.PROVIDER_ERROR),
        3: ({"status": rng.choice((429, 500, 503))}, RequestOutcome.PROVIDER_ERROR),
        4: ({"silent": True}, RequestOutcome.PROVIDER_ERROR),
        5: (good | {"as_string": True}, RequestOutcome.SUCCEEDED),
        6: (good | {"refusal": "I would rather not."}, _REFUSED[judge]),
        7: (good | {"finish": "length"}, RequestOutcome.TRUNCATED),
        8: (good | {"finish": "content_filter"}, _FILTERED[judge]),
        9: ({"text": rng.choice(_NOT_A_VERDICT)}, RequestOutcome.INVALID_OUTPUT),
    }.get(kind, (good, RequestOutcome.SUCCEEDED))


def _foreign(dialect: Dialect, rng: random.Random) -> str:
    name = rng.choice(("foreign-1", custom_id("f" * 64, "0123456789-0000001", 1), "x" * 500))
    return json.dumps(dialect(name, {"text": verdict("A")}))


def _write(
    case: FuzzedResult, source: Any, rows: list[tuple[str, bytes]], rng: random.Random
) -> None:
    """Put rows through a file of bytes, which may be cut off anywhere."""
    content = b""
    ends: list[tuple[int, str]] = []
    for name, line in rows:
        content += line
        ends.append((len(content), name))
        content += rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b" \n"))
    if rows and rng.random() < 0.15:
        content = content[: rng.randrange(len(content))]
    for name in {name for end, name in ends if name and end > len(content)}:
        whole = case.expected[name]
        # Cut off: gone, unless another copy of it stands elsewhere.
        case.expected[name] = Expected(whole.outcomes | {RequestOutcome.MISSING}, whole.winner)
    case.lines += list(raw_lines(io.BytesIO(content), source))

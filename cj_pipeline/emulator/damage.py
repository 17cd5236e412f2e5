"""How a fault damages what was going out: a body that ends early, a row that says less or else.

What befalls which request, job or row is decided in `faults`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from cj_pipeline.emulator.config import Fault

_WEB_PAGE = b"<!DOCTYPE html>\n<html><body><h1>Sign in to this network</h1></body></html>\n"
_BOM = b"\xef\xbb\xbf"
_IDS = frozenset({"custom_id", "key", "metadata", "batch_request_id"})
_MODEL_NAMES = ("model", "modelVersion")


def damaged_body(fault: Fault, raw: bytes) -> bytes:
    """Return a body as a fault lets it arrive: whole as a transfer, and not what was meant."""
    match fault.kind:
        case "web_page":
            return _WEB_PAGE
        case "byte_order_mark":
            return _BOM + raw
        case "short_body":
            return _shortened(fault, raw)
        case _:
            return raw[: max(1, len(raw) // 2)] + b"<html>"


def _shortened(fault: Fault, raw: bytes) -> bytes:
    """Return the first share of a body: of its lines, or of the responses in it."""
    try:
        answer = json.loads(raw)
        responses = _responses_in(answer)
    except (ValueError, KeyError, TypeError, AttributeError):
        lines = raw.splitlines(keepends=True)
        if fault.at_line_end:
            return b"".join(lines[: math.ceil(len(lines) * fault.share)])
        # By lines, not bytes: how long they are differs from run to run, with times and ids.
        n_whole = min(int(len(lines) * fault.share), max(0, len(lines) - 1))
        rest = lines[n_whole] if lines else b""
        return b"".join(lines[:n_whole]) + rest[: len(rest) // 2]
    del responses[math.ceil(len(responses) * fault.share) :]
    return json.dumps(answer).encode()


def _responses_in(answer: Any) -> list[Any]:
    """Return the list of a job's responses in an answer: Gemini's, xAI's or OpenRouter's.

    Raises:
        KeyError, TypeError, AttributeError: If it has none.
    """
    if isinstance(answer.get("results"), list):
        found: list[Any] = answer["results"]
    else:
        found = answer["response"]["inlinedResponses"]["inlinedResponses"]
    return found


def damaged_row(fault: str | None, row: dict[str, Any]) -> dict[str, Any]:
    """Return an answered row as a fault has it: what it says of its request, usage or model."""
    if fault == "keyless":
        return {k: v for k, v in row.items() if k not in _IDS}
    if fault == "other_model":
        return _with_model(row, "another-model-2")
    change = _USAGE_CHANGES.get(fault or "")
    return row if change is None else _with_usage(row, change)


def _with_usage(row: dict[str, Any], change: Any) -> dict[str, Any]:
    """Return a row with whatever its usage is under changed."""
    changed: dict[str, Any] = {}
    for name, value in row.items():
        if name in {"usage", "usageMetadata"}:
            changed[name] = change(value)
        else:
            changed[name] = _with_usage(value, change) if isinstance(value, dict) else value
    return changed


def _with_model(row: dict[str, Any], model: str) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in row.items():
        if name in _MODEL_NAMES:
            changed[name] = model
        else:
            changed[name] = _with_model(value, model) if isinstance(value, dict) else value
    return changed


def _mapped(usage: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {
        name: _mapped(value, change)
        if isinstance(value, dict)
        else change(value)
        if isinstance(value, int)
        else value
        for name, value in usage.items()
    }


def _scaled(usage: Mapping[str, Any], factor: int) -> dict[str, Any]:
    return _mapped(usage, lambda value: value * factor)


def _adding_up_wrong(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return usage whose parts do not come to its total, or to more than they can."""
    totals = [name for name in ("total_tokens", "totalTokenCount") if name in usage]
    if totals:
        return {**usage, totals[0]: usage[totals[0]] * 2 + 1}
    written = {"ephemeral_5m_input_tokens": 10**6, "ephemeral_1h_input_tokens": 0}
    return {**usage, "cache_creation": written}


_USAGE_CHANGES: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "usage_null": lambda _: None,
    "usage_empty": lambda _: {},
    "usage_zero": lambda usage: _scaled(usage, 0),
    "usage_text": lambda usage: _mapped(usage, str),
    "usage_adds_up_wrong": _adding_up_wrong,
    "usage_too_large": lambda usage: _scaled(usage, 1_000),
}

"""Chat completions and responses: what is asked, what is answered, and which models there are.

OpenAI's words, and those of services that took them over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cj_pipeline.emulator import judges
from cj_pipeline.emulator.http import HTTPError, Response, json_answer, limit_in
from cj_pipeline.emulator.jobs import Tokens
from cj_pipeline.emulator.judges import JudgeReply, JudgeRequest
from cj_pipeline.emulator.random import identifier
from cj_pipeline.emulator.routing import RequestContext, allows_ties, before_essays, text_of

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def create_completion(
    context: RequestContext, dress: Callable[[dict[str, Any]], None] = lambda _: None
) -> Response:
    """Answer a chat completion; `dress` changes the answer for a service that words it so."""
    judge_request = read_chat(context.call.json())
    reply, cost, took_s = context.answer_now(context.api, judge_request)
    request_id = identifier("req_", context.now, context.account, context.state.count("requests"))
    body = chat_body(judge_request.model, reply, cost, request_id, context.now)
    dress(body)
    return json_answer(body, headers=_call_headers(request_id, reply), took_s=took_s)


def create_response(context: RequestContext) -> Response:
    """Answer a response request."""
    judge_request = read_response_request(context.call.json())
    reply, cost, took_s = context.answer_now(context.api, judge_request)
    request_id = identifier("req_", context.now, context.account, context.state.count("requests"))
    body = response_body(judge_request.model, reply, cost, request_id, context.now)
    return json_answer(body, headers=_call_headers(request_id, reply), took_s=took_s)


def list_models(context: RequestContext) -> Response:
    """Name the judges."""
    names = ["quality", "human-votes", "recorded", *judges.PROFILES, *context.settings.judges]
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "emulator"}
        for name in dict.fromkeys(names)
    ]
    return json_answer({"object": "list", "data": models})


def read_chat(body: Mapping[str, Any]) -> JudgeRequest:
    """Return what a chat completion's body requests.

    Raises:
        RefusedError: If it cannot be used.
    """
    _refuse_streams(body)
    prompt = text_of(body.get("messages"))
    return JudgeRequest(
        model=model_of(body),
        prompt=prompt,
        prefix=before_essays(prompt),
        allow_ties=allows_ties(body.get("response_format")),
        max_tokens=limit_in(body, "max_completion_tokens") or limit_in(body, "max_tokens"),
    )


def read_response_request(body: Mapping[str, Any]) -> JudgeRequest:
    """Return what a response request's body requests.

    Raises:
        RefusedError: If it cannot be used.
    """
    _refuse_streams(body)
    prompt = "\n\n".join(
        filter(None, [text_of(body.get("instructions")), text_of(body.get("input"))])
    )
    return JudgeRequest(
        model=model_of(body),
        prompt=prompt,
        prefix=before_essays(prompt),
        allow_ties=allows_ties(body.get("text")),
        max_tokens=limit_in(body, "max_output_tokens"),
    )


def chat_body(model: str, reply: JudgeReply, cost: Tokens, key: str, now: float) -> dict[str, Any]:
    """Return a chat completion."""
    refusal = reply.text if reply.kind == "refusal" else None
    message = {"role": "assistant", "content": None if refusal else reply.text, "refusal": refusal}
    finish = {"truncated_answer": "length", "content_filter": "content_filter"}
    return {
        "id": identifier("chatcmpl-", key),
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": finish.get(reply.kind, "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": cost.prompt,
            "completion_tokens": cost.completion,
            "total_tokens": cost.prompt + cost.completion,
            "prompt_tokens_details": {"cached_tokens": cost.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": cost.reasoning},
        },
        "service_tier": "default",
    }


def response_body(
    model: str, reply: JudgeReply, cost: Tokens, key: str, now: float
) -> dict[str, Any]:
    """Return a response."""
    reasons = {"truncated_answer": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(reply.kind)
    kind = "refusal" if reply.kind == "refusal" else "output_text"
    content: dict[str, Any] = {"type": kind, kind.removeprefix("output_"): reply.text}
    if kind == "output_text":
        content["annotations"] = []
    message = {
        "id": identifier("msg_", key),
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if reason else "completed",
        "content": [content],
    }
    return {
        "id": identifier("resp_", key),
        "object": "response",
        "created_at": int(now),
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": cost.prompt,
            "input_tokens_details": {"cached_tokens": cost.cached},
            "output_tokens": cost.completion,
            "output_tokens_details": {"reasoning_tokens": cost.reasoning},
            "total_tokens": cost.prompt + cost.completion,
        },
    }


def model_of(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise HTTPError(400, "Missing required parameter: 'model'.")
    return model


def _refuse_streams(body: Mapping[str, Any]) -> None:
    if body.get("stream"):
        raise HTTPError(400, "The emulator does not stream.", code="unsupported_parameter")


def _call_headers(request_id: str, reply: JudgeReply) -> dict[str, str]:
    return {"x-request-id": request_id, "openai-processing-ms": str(round(reply.took_s * 1000))}

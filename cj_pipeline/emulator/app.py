"""The emulator itself: routes, keys, the clock, and what goes wrong with requests.

Each API's handlers live in a module of its own; the ways by which calls come in, in `transports`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from cj_pipeline.emulator.config import EmulatorConfig, Fault
from cj_pipeline.emulator.damage import damaged_body
from cj_pipeline.emulator.faults import request_fault
from cj_pipeline.emulator.http import Breakage, HTTPError, Request, Response, json_answer
from cj_pipeline.emulator.routing import Handler, RequestContext, Route
from cj_pipeline.emulator.state import State

Api = tuple[str, tuple[Route, ...], Callable[[HTTPError], Response]]
"""An API: its name, its routes, and how it words a refusal."""

_GEMINI_PATH = re.compile(r"/upload/|/v1(beta|alpha)?/models/[^/]+:|/v1(beta|alpha)/")


class Emulator:
    """Answers calls; holds no state but its configuration, so any number may share a file."""

    def __init__(
        self,
        config: EmulatorConfig,
        clock: Callable[[], float] = time.time,
        token: str | None = None,
    ) -> None:
        self.config = config
        self._token = token
        self.clock = clock
        self.state = State(config)

    def handle(self, call: Request) -> Response:
        """Return the answer to a call, damaged if a fault says so."""
        api, routes, refused = _called(call)
        try:
            return self._answer(call, api, routes)
        except HTTPError as error:
            return refused(error)

    def _answer(self, call: Request, api: str, routes: tuple[Route, ...]) -> Response:
        route, groups = _match(call, routes)
        settings = self.state.settings()
        context = RequestContext(
            state=self.state,
            config=self.config,
            call=call,
            route=f"{api}.{route.name}",
            groups=groups,
            account=self._account(call, api, needs_key=route.needs_key),
            settings=settings,
            now=self.clock() + self.state.clock_offset_s(),
        )
        if api == "emulator":
            return route.handler(context)
        fault = request_fault(settings, self.state, self.config.seed, context.route)
        if fault is None:
            return route.handler(context)
        return with_fault(fault, route.handler, context)

    def _account(self, call: Request, api: str, *, needs_key: bool) -> str:
        key = _key(call)
        if not key and needs_key and api != "emulator":
            raise HTTPError(401, "You didn't provide an API key.", code="invalid_api_key")
        # A path that needs no key has one that cannot be guessed in it.
        if self._token and (needs_key or api == "emulator") and not is_same(key, self._token):
            raise HTTPError(401, "Incorrect API key provided.", code="invalid_api_key")
        # Keys that are alike up to `--` belong to one account: `school--old` and `school--new`.
        account = key.partition("--")[0]
        return hashlib.sha256(b"emulator account " + account.encode()).hexdigest()[:12]


def _called(call: Request) -> Api:
    """Return the API that a call is for."""
    from cj_pipeline.emulator.apis import (
        anthropic,
        control,
        gemini,
        mistral,
        openai,
        openrouter,
        xai,
    )

    below: dict[str, Api] = {
        "emulator": control.API,
        "mistral": mistral.API,
        "xai": xai.API,
        "openrouter": openrouter.API,
    }
    if (api := below.get(call.path.split("/")[1])) is not None:
        return api
    if call.path.startswith("/v1/messages"):
        return anthropic.API
    if _GEMINI_PATH.match(call.path) or "x-goog-api-key" in call.headers:
        # OpenAI and Gemini both have /v1/files and /v1/batches; the key's header decides.
        return gemini.API
    return openai.API


def is_same(key: str, token: str) -> bool:
    """Return whether a key is the token, in a time that says nothing of how nearly it is."""
    return hmac.compare_digest(key.encode("utf-8", "surrogateescape"), token.encode())


def with_fault(fault: Fault, handler: Handler, context: RequestContext) -> Response:
    if fault.kind == "lost_request":
        return replace(json_answer({}), breakage=Breakage("drop"))
    if fault.kind == "hang" and not fault.after_commit:
        return replace(json_answer({}, status=504), breakage=Breakage("hang", fault.seconds))
    if fault.kind == "out_of_credit":
        raise without_credit(context.route)
    if fault.kind == "status":
        if fault.after_commit:
            handler(context)
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
        raise HTTPError(
            fault.status, "This is a fault of the emulator.", code=code, headers=headers
        )
    answer = handler(context)
    match fault.kind:
        case "lost_reply":
            return replace(answer, breakage=Breakage("drop"))
        case "hang":
            return replace(answer, breakage=Breakage("hang", fault.seconds))
        case "truncated":
            return replace(answer, breakage=Breakage("truncate", share=fault.share))
        case _:
            raw = damaged_body(fault, b"".join(answer.chunks))
            return replace(answer, chunks=iter([raw]), length=len(raw))


def without_credit(route: str) -> HTTPError:
    """Return what each provider answers when an account has to be paid for."""
    if route.startswith("anthropic."):
        words = "Your credit balance is too low to access the API. Please purchase credits."
        return HTTPError(400, words, code="invalid_request_error")
    if route.startswith("gemini."):
        words = "Your prepayment credits are depleted. Please manage your project and billing."
        return HTTPError(429, words, code="RESOURCE_EXHAUSTED")
    if route.startswith("xai."):
        words = "Your team has either used all available credits or reached its monthly limit."
        return HTTPError(429, words, code="Some resource has been exhausted")
    if route.startswith("openrouter."):
        return HTTPError(402, "Insufficient credits. Add more on the credits page.")
    words = "You exceeded your current quota, please check your plan and billing details."
    return HTTPError(429, words, code="insufficient_quota")


def _match(call: Request, routes: tuple[Route, ...]) -> tuple[Route, Mapping[str, str]]:
    known_path = False
    for route in routes:
        if match := route.path.fullmatch(call.path):
            if route.method == call.method:
                return route, match.groupdict()
            known_path = True
    if known_path:
        raise HTTPError(405, f"Method {call.method} is not allowed for {call.path}.")
    raise HTTPError(404, f"Invalid URL ({call.method} {call.path}).", code="unknown_url")


def _key(call: Request) -> str:
    """Return the key a call bears, in any of the headers that services take it in."""
    headers = call.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
    return (
        headers.get("x-goog-api-key")
        or headers.get("x-api-key")
        or headers.get("api-key")
        or bearer
        or call.query.get("key", "")
    )

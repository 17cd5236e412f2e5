"""The emulator itself: routes, keys, the clock, and what goes wrong with requests.

Each API's handlers live in a module of its own; the doors by which calls come in, in `doors`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from cj_pipeline.emulator import verdicts
from cj_pipeline.emulator.config import EmulatorConfig, Fault, Settings
from cj_pipeline.emulator.exchange import Answer, Breakage, Call, RefusedError, json_answer
from cj_pipeline.emulator.faults import job_faults, request_fault, row_faults
from cj_pipeline.emulator.job_times import Plan
from cj_pipeline.emulator.jobs import (
    RequestLine,
    RowWords,
    Tokens,
    Worked,
    WorkRules,
    known_prefixes,
    prefix_cost,
    remember_prefixes,
    work_out,
)
from cj_pipeline.emulator.state import State, insert
from cj_pipeline.emulator.verdicts import Asked, Said

Handler = Callable[["Visit"], Answer]


@dataclass(frozen=True)
class Route:
    """One endpoint: its name (faults are aimed by it), method, path and handler."""

    name: str
    method: str
    path: re.Pattern[str]
    handler: Handler
    needs_key: bool = True


@dataclass(frozen=True)
class Visit:
    """A call being handled: by whom, when, and under which settings."""

    emulator: Emulator
    call: Call
    route: str
    groups: Mapping[str, str]
    account: str
    settings: Settings
    now: float

    @property
    def state(self) -> State:
        """The emulator's state."""
        return self.emulator.state

    @property
    def seed(self) -> int:
        """The emulator's seed."""
        return self.emulator.config.seed

    def plan(
        self,
        took_s: float,
        errors: tuple[tuple[str, str, int | None], ...] = (),
        window_s: float = 86_400.0,
    ) -> Plan:
        """Draw what will become of a job made by this call; its errors end it first."""
        settings = self.settings
        faults = {f.kind: f for f in job_faults(settings, self.state, self.seed, self.route)}
        plan = Plan(
            duration_s=took_s if settings.latency_s is None else settings.latency_s,
            window_s=window_s,
            cancel_latency_s=settings.cancel_latency_s,
            listed_after_s=settings.list_lag_s,
            status_word=faults["status_word"].word if "status_word" in faults else "",
            late_files_s=faults["late_file_ids"].seconds if "late_file_ids" in faults else 0.0,
            empty_file_ids="empty_file_ids" in faults,
        )
        if errors:
            return replace(plan, fate="fails", errors=errors)
        if fails := faults.get("fails"):
            problem = (fails.word, "The job failed: a fault of the emulator.", None)
            return replace(plan, fate="fails", errors=(problem,))
        for fate in ("stuck", "expires", "is_cancelled"):
            if found := faults.get(fate):
                return replace(plan, fate=fate, done_share=found.share)
        return plan

    def work_out(self, requests: Iterable[RequestLine], words: RowWords, key: str) -> Worked:
        """Work out the rows of a job made by this call."""
        with self.state.read() as db:
            prefixes = known_prefixes(db, self.account, self.now)
        rules = WorkRules(
            job_key=key,
            seed=self.seed,
            settings=self.settings,
            faults=row_faults(self.settings, self.route),
            qualities=self.state.qualities(),
            known_prefixes=prefixes,
        )
        return work_out(self.state, requests, words, rules)

    def answer_now(self, api: str, asked: Asked) -> tuple[Said, Tokens, float]:
        """Answer a single call, and keep what it cost; return also how long it takes.

        The header `X-Client-Request-Id` is the request's own id. Without it the prompt is: the
        same prompt has the same answer again, unless it brought no verdict; so an answer that was
        lost can be had once more, and one that was of no use need not be.
        """
        settings, when = self.settings, self.now
        prompt = hashlib.sha256(asked.prompt.encode("utf-8", errors="replace")).hexdigest()
        custom_id = self.call.headers.get("x-client-request-id")
        with self.state.read() as db:
            times = db.execute(
                "SELECT count(*) FROM single_calls WHERE prompt_sha256 = ? AND NOT is_verdict",
                [prompt],
            ).fetchone()[0]
            cached = known_prefixes(db, self.account, when)
        number = self.state.count("calls")
        occasion = verdicts.occasion(self.seed, custom_id or f"{prompt}-{times}", number)
        kept = {
            "account": self.account,
            "api": api,
            "model": asked.model,
            "created_at": when,
            "prompt_sha256": prompt,
            "custom_id": custom_id,
        }
        nothing = {"prompt": 0, "cached": 0, "written": 0, "completion": 0, "reasoning": 0}
        try:
            said = verdicts.answer(asked, occasion, settings, self.state.qualities())
        except RefusedError:
            with self.state.write() as db:
                insert(db, "single_calls", {**kept, **nothing, "ok": False, "is_verdict": False})
            raise
        read, written, prefix = prefix_cost(
            asked, said.prompt_tokens, cached, settings.least_cacheable_tokens
        )
        cost = Tokens(
            said.prompt_tokens, read, written, said.completion_tokens, said.reasoning_tokens
        )
        with self.state.write() as db:
            verdict = {"ok": True, "is_verdict": said.kind == "verdict"}
            insert(db, "single_calls", {**kept, **vars(cost), **verdict})
            remember_prefixes(db, self.account, [prefix] if prefix else [], when)
        wait = said.took_s if settings.call_latency_s is None else settings.call_latency_s
        return said, cost, wait


_GEMINI_PATH = re.compile(r"/upload/|/v1(beta|alpha)?/models/[^/]+:|/v1(beta|alpha)/")


class Emulator:
    """Answers calls; holds no state but its configuration, so any number may share a file."""

    def __init__(self, config: EmulatorConfig, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.clock = clock
        self.state = State(config)

    def handle(self, call: Call) -> Answer:
        """Return the answer to a call, spoilt if a fault says so."""
        from cj_pipeline.emulator import anthropic_api, gemini_api, openai_api, own_api

        if call.path.startswith("/emulator/"):
            api, routes, refused = own_api.API
        elif call.path.startswith("/v1/messages"):
            api, routes, refused = anthropic_api.API
        elif _GEMINI_PATH.match(call.path) or "x-goog-api-key" in call.headers:
            # OpenAI and Gemini both have /v1/files and /v1/batches; the key's header tells.
            api, routes, refused = gemini_api.API
        else:
            api, routes, refused = openai_api.API
        try:
            return self._answer(call, api, routes)
        except RefusedError as error:
            return refused(error)

    def _answer(self, call: Call, api: str, routes: tuple[Route, ...]) -> Answer:
        route, groups = _match(call, routes)
        settings = self.state.settings()
        visit = Visit(
            emulator=self,
            call=call,
            route=f"{api}.{route.name}",
            groups=groups,
            account=_account(call, required=route.needs_key and api != "emulator"),
            settings=settings,
            now=self.clock() + self.state.clock_offset_s(),
        )
        if api == "emulator":
            return route.handler(visit)
        fault = request_fault(settings, self.state, self.config.seed, visit.route)
        if fault is None:
            return route.handler(visit)
        return _spoilt(fault, route.handler, visit)


def _spoilt(fault: Fault, handler: Handler, visit: Visit) -> Answer:
    if fault.kind == "lost_request":
        return replace(json_answer({}), breakage=Breakage("drop"))
    if fault.kind == "hang" and not fault.after_commit:
        return replace(json_answer({}, status=504), breakage=Breakage("hang", fault.seconds))
    if fault.kind == "status":
        if fault.after_commit:
            handler(visit)
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        code = "rate_limit_exceeded" if fault.status == 429 else "server_error"
        raise RefusedError(
            fault.status, "This is a fault of the emulator.", code=code, headers=headers
        )
    answer = handler(visit)
    match fault.kind:
        case "lost_reply":
            return replace(answer, breakage=Breakage("drop"))
        case "hang":
            return replace(answer, breakage=Breakage("hang", fault.seconds))
        case "truncated":
            return replace(answer, breakage=Breakage("truncate", share=fault.share))
        case _:
            raw = b"".join(answer.chunks)[: max(1, answer.length // 2)] + b"<html>"
            return replace(answer, chunks=iter([raw]), length=len(raw))


def _match(call: Call, routes: tuple[Route, ...]) -> tuple[Route, Mapping[str, str]]:
    known_path = False
    for route in routes:
        if match := route.path.fullmatch(call.path):
            if route.method == call.method:
                return route, match.groupdict()
            known_path = True
    if known_path:
        raise RefusedError(405, f"Method {call.method} is not allowed for {call.path}.")
    raise RefusedError(404, f"Invalid URL ({call.method} {call.path}).", code="unknown_url")


def _account(call: Call, *, required: bool) -> str:
    """Return a fingerprint of the key; the key itself is never kept."""
    headers = call.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
    key = (
        headers.get("x-goog-api-key")
        or headers.get("x-api-key")
        or bearer
        or call.query.get("key", "")
    )
    if not key and required:
        raise RefusedError(401, "You didn't provide an API key.", code="invalid_api_key")
    return hashlib.sha256(b"emulator account " + key.encode()).hexdigest()[:12]


def text_of(content: object) -> str:
    """Return the text in a message's content: a string, or a list of parts that bear text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n\n".join(filter(None, map(text_of, content)))
    if isinstance(content, dict):
        return text_of(content.get("text") or content.get("content") or content.get("parts") or "")
    return ""


def before_essays(prompt: str) -> str:
    """Return the part of a prompt that does not change from one pair to the next."""
    return prompt.partition("<essay-a-")[0]


def allows_ties(schema: object) -> bool:
    """Whether an answer's schema has room for a tie; without a schema there is."""
    found = re.search(r'"winner": \{[^}]*"enum": \[([^\]]*)\]', json.dumps(schema))
    return found is None or '"tie"' in found[1]

"""Routes and what a handler is given of one request; shared by the emulated APIs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from cj_pipeline.emulator import judges
from cj_pipeline.emulator.config import EmulatorConfig, Settings
from cj_pipeline.emulator.faults import job_faults, row_faults
from cj_pipeline.emulator.http import HTTPError, Request, Response
from cj_pipeline.emulator.job_timeline import JobPlan
from cj_pipeline.emulator.jobs import (
    JobRows,
    RequestLine,
    RowWords,
    Tokens,
    WorkRules,
    answer_rows,
    known_prefixes,
    prefix_cost,
    remember_prefixes,
)
from cj_pipeline.emulator.judges import JudgeReply, JudgeRequest
from cj_pipeline.emulator.state import State, insert

Handler = Callable[["RequestContext"], Response]


@dataclass(frozen=True)
class Route:
    """One endpoint: its name (faults are aimed by it), method, path and handler."""

    name: str
    method: str
    path: re.Pattern[str]
    handler: Handler
    needs_key: bool = True


def routes(*listed: tuple[str, str, str, Handler]) -> tuple[Route, ...]:
    """Return the endpoints of an API: each a name, a method, a pattern of its path, a handler."""
    return tuple(Route(name, method, re.compile(path), act) for name, method, path, act in listed)


@dataclass(frozen=True)
class RequestContext:
    """A call being handled: by whom, when, and under which settings."""

    state: State
    config: EmulatorConfig
    call: Request
    route: str
    groups: Mapping[str, str]
    account: str
    settings: Settings
    now: float

    @property
    def api(self) -> str:
        """The name of the API that the call is for."""
        return self.route.partition(".")[0]

    @property
    def seed(self) -> int:
        """The emulator's seed."""
        return self.config.seed

    def plan(
        self,
        took_s: float,
        errors: tuple[tuple[str, str, int | None], ...] = (),
        window_s: float = 86_400.0,
    ) -> JobPlan:
        """Draw what will become of a job made by this call; its errors end it first."""
        settings = self.settings
        faults = {f.kind: f for f in job_faults(settings, self.state, self.seed, self.route)}
        plan = JobPlan(
            duration_s=took_s if settings.latency_s is None else settings.latency_s,
            window_s=window_s,
            cancel_latency_s=settings.cancel_latency_s,
            listed_after_s=settings.list_lag_s,
            status_word=faults["status_word"].word if "status_word" in faults else "",
            late_files_s=faults["late_file_ids"].seconds if "late_file_ids" in faults else 0.0,
            empty_file_ids="empty_file_ids" in faults,
            counts_word=faults["counts"].word if "counts" in faults else "",
        )
        if errors:
            return replace(plan, fate="fails", errors=errors)
        if fails := faults.get("fails") or faults.get("fails_half_way"):
            problem = (fails.word, "The job failed: a fault of the emulator.", None)
            if fails.kind == "fails":
                return replace(plan, fate="fails", errors=(problem,))
            return replace(plan, fate="fails_half_way", done_share=fails.share, errors=(problem,))
        for fate in ("stuck", "expires", "is_cancelled"):
            if found := faults.get(fate):
                return replace(plan, fate=fate, done_share=found.share)
        return plan

    def answer_rows(self, requests: Iterable[RequestLine], words: RowWords, key: str) -> JobRows:
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
        return answer_rows(self.state, requests, words, rules)

    def answer_now(self, api: str, judge_request: JudgeRequest) -> tuple[JudgeReply, Tokens, float]:
        """Answer a single call, and keep what it cost; return also how long it takes.

        The header `X-Client-Request-Id` is the request's own id. Without it the prompt is: the
        same prompt has the same answer again, unless it brought no verdict; so an answer that was
        lost can be had once more, and one that was of no use need not be.
        """
        settings, when = self.settings, self.now
        prompt = hashlib.sha256(judge_request.prompt.encode("utf-8", errors="replace")).hexdigest()
        custom_id = self.call.headers.get("x-client-request-id")
        with self.state.read() as db:
            times = db.execute(
                "SELECT count(*) FROM single_calls WHERE prompt_sha256 = ? AND NOT is_verdict",
                [prompt],
            ).fetchone()[0]
            cached = known_prefixes(db, self.account, when)
        number = self.state.count("calls")
        draw_key = judges.draw_key(self.seed, custom_id or f"{prompt}-{times}", number)
        kept = {
            "account": self.account,
            "api": api,
            "model": judge_request.model,
            "created_at": when,
            "prompt_sha256": prompt,
            "custom_id": custom_id,
        }
        nothing = {"prompt": 0, "cached": 0, "written": 0, "completion": 0, "reasoning": 0}
        try:
            reply = judges.answer(judge_request, draw_key, settings, self.state.qualities())
        except HTTPError:
            with self.state.write() as db:
                insert(db, "single_calls", {**kept, **nothing, "ok": False, "is_verdict": False})
            raise
        read, written, prefix = prefix_cost(
            judge_request, reply.prompt_tokens, cached, settings.least_cacheable_tokens
        )
        cost = Tokens(
            reply.prompt_tokens, read, written, reply.completion_tokens, reply.reasoning_tokens
        )
        with self.state.write() as db:
            verdict = {"ok": True, "is_verdict": reply.kind == "verdict"}
            insert(db, "single_calls", {**kept, **vars(cost), **verdict})
            remember_prefixes(db, self.account, [prefix] if prefix else [], when)
        wait = reply.took_s if settings.call_latency_s is None else settings.call_latency_s
        return reply, cost, wait


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

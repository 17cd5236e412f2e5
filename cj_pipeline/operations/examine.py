"""Whether a judge can judge, found out by a few live calls before a batch is spent on it.

What one call tells is `pilot`; what costs nothing of this runs in every `preflight`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import yaml

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    CJError,
    InvalidOutputError,
    ProviderRefusedError,
    UncertainOutcomeError,
)
from cj_pipeline.ids import nearest
from cj_pipeline.judging.estimates import worst_case_usd
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import cost_usd, prompt_bytes
from cj_pipeline.judging.prompts import Prompt, is_thought_only, parse_verdict, render_prompt
from cj_pipeline.judging.provider_definitions import Structured
from cj_pipeline.operations.pilot import CALL_TIMEOUT_S, Trial
from cj_pipeline.providers.base import Provider, Reply
from cj_pipeline.providers.transport import shortened
from cj_pipeline.providers.usage_evidence import UsageEvidence, is_far_from

Standing = Literal["ready", "warning", "problem"]

_MANNERS: tuple[Structured, ...] = ("json_schema", "json_object", "prompt")

CALLS_AT_MOST = len(_MANNERS) + 2
"""Each manner of asking for JSON once, then the longest pair in both orders."""

LEAST_SHARE_READ = 0.6
"""A byte of the longest pair must bring this share of the tokens that a byte of a short one does:
English, Swedish and German prose differ by less, a prompt cut to half by more."""

_LONGER_BY = 1.5
"""How much longer than the short pair the longest must be to tell a cut."""

_SHORT = (
    "School should begin later, because pupils who have slept learn more. Studies say so.",
    "I think school is good. It is good to go there and it is good to learn things there.",
)
_PARAGRAPH = (
    "When our class was asked to write about the town, most of us began with the harbour. The"
    " harbour is where the ferries land, where the market stands on Saturdays, and where my"
    " grandfather knotted nets for forty years before the last trawler was sold. "
)


@dataclass(frozen=True)
class Examined:
    """One thing that was looked at: how it stands, what was found, and what to set."""

    about: str
    standing: Standing
    finding: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examination:
    """What became of examining a judge.

    Attributes:
        judge: Who was examined.
        examined: What was looked at, in order.
        n_calls: Calls that were made.
        usd: What the answers that told their usage cost together.
        trials: The calls that were or may have been paid for.
    """

    judge: Judge
    examined: tuple[Examined, ...]
    n_calls: int
    usd: float
    trials: tuple[Trial, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether nothing stands in the way."""
        return all(each.standing != "problem" for each in self.examined)

    @property
    def offered(self) -> dict[str, Any]:
        """The judge's file with what was found set; empty where nothing has to be."""
        found: dict[str, Any] = {}
        for each in self.examined:
            found |= each.settings
        if not found:
            return {}
        judge = self.judge
        settings = judge.settings.model_dump(exclude_none=True)
        if "max_output_tokens" in found:
            settings["max_output_tokens"] = found.pop("max_output_tokens")
        given = {
            "name": judge.name,
            "provider": judge.provider,
            "api": judge.api,
            "model": judge.model,
            "template": judge.template.name,
            "settings": settings,
            "base_url": judge.base_url if judge.has_own_address else None,
            "key_variable": judge.key_variable,
            "price": judge.price_override.model_dump(mode="json") if judge.price_override else None,
            "allow_ties": judge.allow_ties or None,
            "structured": judge.structured,
        }
        return {key: value for key, value in (given | found).items() if value is not None}

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "judge_id": self.judge.judge_id,
            "provider": self.judge.provider,
            "model": self.judge.model,
            "ready": self.is_ready,
            "calls": self.n_calls,
            "usd": self.usd,
            "examined": [
                {"about": e.about, "standing": e.standing, "finding": e.finding}
                for e in self.examined
            ],
            "offered": self.offered,
        }


def pairs_to_show(texts: Sequence[str] = ()) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return a short pair, and the longest that a batch has or, without one, a long one."""
    if len(texts) >= 2:
        longest = sorted(texts, key=lambda text: len(text.encode()))[-2:]
        return _SHORT, (longest[0], longest[1])
    return _SHORT, (_PARAGRAPH * 50, _PARAGRAPH * 40 + "And that is why I like it.")


def most_usd(judge: Judge, texts: Sequence[str] = ()) -> float:
    """Return the most that examining a judge can cost."""
    short, longest = pairs_to_show(texts)
    of_short = worst_case_usd(judge.price, _prompt(judge, *short), judge, batched=False)
    of_longest = worst_case_usd(judge.price, _prompt(judge, *longest), judge, batched=False)
    return len(_MANNERS) * of_short + 2 * of_longest


def examine(
    provider: Provider,
    judge: Judge,
    *,
    texts: Sequence[str] = (),
    instructions: str = "",
    rubric: str = "",
) -> Examination:
    """Find out by a few live calls whether a judge can judge, and how it has to be asked.

    Args:
        provider: The judge's.
        judge: As it was loaded.
        texts: Those of the batch it is meant for; its two longest are shown.
        instructions: What judges of that batch are shown besides.
        rubric: Likewise.
    """
    return _Examining(provider, judge, texts, instructions, rubric).run()


def look_at_models(provider: Provider, judge: Judge) -> Examined | None:
    """Return what the provider's list of models says, free of charge; None where it has none.

    Raises:
        CJError: If it does not answer, or takes no key from this account.
    """
    listing = getattr(provider, "models", None)
    models = listing() if listing is not None else None
    if models is None:
        return None
    if judge.model in models or f"models/{judge.model}" in models:
        return Examined("models", "ready", f"{judge.model} is among the {len(models)} listed")
    near = nearest(judge.model, models, at_least=0.4)
    told = f"{judge.model} is not among the {len(models)} that are listed"
    told += near or f": {', '.join(sorted(models)[:5])}"
    return Examined("models", "warning", told)


class _Examining:
    def __init__(
        self, provider: Provider, judge: Judge, texts: Sequence[str], instructions: str, rubric: str
    ) -> None:
        self.provider, self.judge = provider, judge
        self.short, self.longest = pairs_to_show(texts)
        self.shown = {"instructions": instructions, "rubric": rubric}
        self.n_calls, self.usd = 0, 0.0
        self.trials: list[Trial] = []

    def run(self) -> Examination:
        found: list[Examined] = []
        try:
            found.extend(self._look())
        except CJError as error:
            found.append(Examined("server", "problem", _with_hint(error, self.judge)))
        return Examination(self.judge, tuple(found), self.n_calls, self.usd, tuple(self.trials))

    def _look(self) -> Iterator[Examined]:
        models = look_at_models(self.provider, self.judge)
        yield models or Examined("models", "ready", "this service lists none here")
        yield from (found := list(self._manners()))
        if any(each.standing == "problem" for each in found):
            return
        answered = self._answer
        yield self._answer_read(answered)
        yield self._usage(answered)
        yield from self._window(answered)
        yield self._batches()
        each = self.usd / max(1, self.n_calls)
        told = f"{self.n_calls} calls cost {self.usd:.6f} USD, {each:.6f} each"
        yield Examined("price", "ready", told)

    def _manners(self) -> Iterator[Examined]:
        """Ask in each manner until one is taken, first in the judge's own."""
        wanted = self.judge.json_by
        order = [wanted, *(m for m in _MANNERS[_MANNERS.index(wanted) :] if m != wanted)]
        refused: list[str] = []
        for manner in order:
            judge = replace(self.judge, structured=manner)
            reply = self._ask(judge, self.short)
            if reply.outcome is RequestOutcome.PROVIDER_ERROR and not reply.may_retry:
                refused.append(f"{manner}: {reply.error_message or reply.error_code}")
                continue
            if reply.outcome is RequestOutcome.PROVIDER_ERROR:
                told = shortened(reply.error_message or reply.error_code or "an error")
                yield Examined("answer", "problem", f"it answers with {told}: try again")
                return
            self._answer, self.judge_as_taken = reply, judge
            if manner == wanted:
                yield Examined("structured", "ready", f"{manner} is taken")
            else:
                told = f"it refuses {'; '.join(refused)}. {manner} is taken: set `structured`"
                yield Examined("structured", "problem", told, {"structured": manner})
                yield from self._reading_only(reply)
            return
        told = f"it takes no request: {'; '.join(refused)}"
        if not self.judge.service.streaming and "stream" in told.casefold():
            told += (
                f". Define a provider that is `like: {self.judge.provider}` with `streaming: true`,"
                " and name it as the judge's provider"
            )
        yield Examined("structured", "problem", told)

    def _reading_only(self, reply: Reply) -> Iterator[Examined]:
        yield self._answer_read(reply)
        yield self._usage(reply)

    def _answer_read(self, reply: Reply) -> Examined:
        text = (reply.text or "").strip()
        if reply.outcome is RequestOutcome.TRUNCATED:
            most = self.judge.settings.max_output_tokens
            what = "its reasoning" if is_thought_only(text) else "its answer"
            told = f"{what} used up all {most} output tokens: raise max_output_tokens"
            return Examined("answer", "problem", told, {"max_output_tokens": min(65_536, 4 * most)})
        if reply.outcome is not RequestOutcome.SUCCEEDED:
            told = reply.error_message or reply.error_code or reply.outcome.value
            return Examined("answer", "problem", f"no verdict: {told}")
        around = [
            what
            for what, is_there in (
                ("a block of thoughts", re.match(r"<think", text, re.IGNORECASE)),
                ("a fence", "```" in text[:400]),
            )
            if is_there
        ]
        try:
            verdict = parse_verdict(text, allow_ties=self.judge.allow_ties)
        except InvalidOutputError as error:
            return Examined("answer", "problem", f"{error} It begins: {shortened(text, 120)!r}")
        told = f"a verdict ({verdict.winner}) that can be read"
        if around:
            told += f", with {' and '.join(around)} around it, which is taken off"
        return Examined("answer", "ready", told)

    def _usage(self, reply: Reply) -> Examined:
        if reply.usage is None:
            told = "it does not report what it used: each answer is billed at its highest cost"
            free = self.judge.price.output == 0 and self.judge.price.input == 0
            return Examined("usage", "ready" if free else "warning", told)
        n_bytes = prompt_bytes(_prompt(self.judge, *self.short, **self.shown))
        n_answer = len((reply.text or "").encode())
        told = f"{reply.usage.prompt} tokens in, {reply.usage.completion} out"
        is_odd = reply.evidence is UsageEvidence.CONTRADICTORY
        if is_odd or is_far_from(reply.usage, n_bytes, n_answer):
            told += ", which cannot be: answers are billed at their highest cost"
            return Examined("usage", "warning", told)
        return Examined("usage", "ready", told)

    def _window(self, first: Reply) -> Iterator[Examined]:
        """Compare the tokens that a byte brings in a short pair and in the longest."""
        bytes_short = prompt_bytes(_prompt(self.judge, *self.short, **self.shown))
        bytes_long = prompt_bytes(_prompt(self.judge, *self.longest, **self.shown))
        reply = self._ask(self.judge_as_taken, self.longest)
        about = f"the longest pair ({bytes_long:,} bytes)"
        if reply.outcome not in {RequestOutcome.SUCCEEDED, RequestOutcome.TRUNCATED}:
            why = reply.error_message or reply.error_code or reply.outcome.value
            yield Examined("prompt window", "problem", f"{about} is not judged: {why}")
            return
        if first.usage is None or reply.usage is None or not first.usage.prompt:
            told = f"it cannot be told whether {about} is read whole: no tokens are counted"
            yield Examined("prompt window", "warning", told)
            return
        if bytes_long < _LONGER_BY * bytes_short:
            yield Examined("prompt window", "ready", f"{about} is hardly longer than a short one")
            return
        per_byte = first.usage.prompt / bytes_short
        more = (reply.usage.prompt - first.usage.prompt) / (bytes_long - bytes_short)
        counted = f"of {about} {reply.usage.prompt:,} tokens are counted"
        if more < LEAST_SHARE_READ * per_byte:
            expected = round(bytes_long * per_byte)
            told = (
                f"{counted} where about {expected:,} are expected: the server cuts its prompts, and"
                " would judge parts of essays. Raise its context length"
            )
            yield Examined("prompt window", "problem", told)
        else:
            yield Examined("prompt window", "ready", f"{counted}, as many as expected")

    def _batches(self) -> Examined:
        if not self.judge.has_jobs:
            told = "none: set llm_batching_mode to per_request or serial_bundle"
            return Examined("batch endpoint", "ready", told)
        try:
            next(iter(self.provider.list_jobs(datetime.now(UTC))), None)
        except CJError as error:
            told = f"{error} Without one, set llm_batching_mode to per_request"
            return Examined("batch endpoint", "problem", told)
        limits = self.provider.limits
        told = f"it answers; {limits.max_requests:,} requests and {limits.max_bytes:,} bytes a job"
        return Examined("batch endpoint", "ready", told)

    def _ask(self, judge: Judge, pair: tuple[str, str]) -> Reply:
        self.n_calls += 1
        prompt = _prompt(judge, *pair, **self.shown)
        request = self.provider.build_request(prompt, judge, f"examine-{prompt.sha256[:16]}")
        began = time.monotonic()
        try:
            line = self.provider.single(request, timeout_s=CALL_TIMEOUT_S)
        except UncertainOutcomeError:
            seconds = time.monotonic() - began
            self.trials.append(Trial(judge, "A", "B", None, "no reply", None, None, seconds))
            raise
        reply = self.provider.parse_reply(line)
        is_refused = reply.outcome is RequestOutcome.PROVIDER_ERROR and not reply.may_retry
        if not is_refused:  # which nobody bills
            seconds = time.monotonic() - began
            self.trials.append(Trial(judge, "A", "B", None, None, reply.text, reply.usage, seconds))
        if reply.usage is not None:
            self.usd += cost_usd(judge.price, reply.usage, batched=False)
        return reply


def _prompt(
    judge: Judge, text_a: str, text_b: str, *, instructions: str = "", rubric: str = ""
) -> Prompt:
    return render_prompt(
        judge.template,
        instructions=instructions,
        rubric=rubric,
        text_a=text_a,
        text_b=text_b,
        nonce=secrets.token_hex(8),
    )


def _with_hint(error: CJError, judge: Judge) -> str:
    """Return a failure, and for a 404 what to set."""
    if not (isinstance(error, ProviderRefusedError) and " answered 404 " in str(error)):
        return str(error)
    address = judge.base_url or judge.service.base_url or ""
    hints = [f"set model to one that {judge.provider} has (or pull or deploy '{judge.model}')"]
    if judge.service.wire == "openai" and not address.rstrip("/").endswith("/v1"):
        hints.insert(
            0, f"set base_url so that it ends as the service's does, often in /v1: {address}"
        )
    return f"{str(error).removesuffix('.')}. {'; or '.join(hints)}."


def offered_file(examination: Examination) -> str:
    """Return the judge's file that an examination offers, as YAML; empty where none is needed."""
    offered = examination.offered
    return yaml.safe_dump(offered, sort_keys=False, allow_unicode=True) if offered else ""

"""What one reply says and costs, and the rows it becomes: pure, one request at a time.

When replies are read, and what becomes of a whole job, is `settlement`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cj_pipeline.batch.comparisons import RequestOutcome, Verdict
from cj_pipeline.errors import InvalidOutputError
from cj_pipeline.judging.judges import Judge
from cj_pipeline.judging.pricing import Price, cost_usd, folded_tier
from cj_pipeline.judging.prompt_window import PromptWindow, SentAndCounted
from cj_pipeline.judging.prompts import ends_in_white_space, is_thought_only, parse_verdict
from cj_pipeline.provider_jobs.ledger import ProviderJob
from cj_pipeline.provider_jobs.missing_rows import PAID_FOR
from cj_pipeline.providers.base import (
    CAPACITY_CODES,
    HELD,
    OUT_OF_CREDIT,
    JobOutcome,
    Parser,
    Reply,
)
from cj_pipeline.providers.transport import shortened
from cj_pipeline.providers.usage_evidence import UsageEvidence, is_far_from

_OUTCOME_WITHOUT_REPLY: Mapping[JobOutcome | None, RequestOutcome] = {
    JobOutcome.EXPIRED: RequestOutcome.EXPIRED,
    JobOutcome.CANCELLED: RequestOutcome.CANCELLED,
}
"""What a request without a reply counts as, by how its job ended; in other cases as missing."""


@dataclass(frozen=True)
class ReadReply:
    """A reply and the verdict in it, or how it failed."""

    outcome: RequestOutcome
    verdict: Verdict | None
    reply: Reply | None
    error_code: str | None
    error_message: str | None
    may_retry: bool


def read_reply(parse: Parser, judge: Judge, body: str) -> ReadReply:
    """Return what a raw callback says; never raises, whatever the provider sent."""
    reply = parse(body)
    if reply.outcome is RequestOutcome.TRUNCATED:
        return _read_truncated(reply, judge)
    if reply.outcome is not RequestOutcome.SUCCEEDED:
        # Which of the judge's own failures are worth another try is said per outcome, below.
        may_retry = reply.may_retry or reply.outcome is not RequestOutcome.PROVIDER_ERROR
        return ReadReply(
            reply.outcome, None, reply, reply.error_code, reply.error_message, may_retry
        )
    try:
        verdict = parse_verdict(reply.text or "", allow_ties=judge.allow_ties)
    except InvalidOutputError as error:
        return ReadReply(
            RequestOutcome(error.kind), None, reply, error.kind, str(error), may_retry=True
        )
    return ReadReply(RequestOutcome.SUCCEEDED, verdict, reply, None, None, may_retry=False)


def _read_truncated(reply: Reply, judge: Judge) -> ReadReply:
    """Return what an answer says that was cut at its limit.

    A whole verdict with nothing but white space after it is a verdict. One whose reasoning used up
    the limit would do so again, and is not asked for again.
    """
    text = reply.text or ""
    if ends_in_white_space(text):
        with contextlib.suppress(InvalidOutputError):
            verdict = parse_verdict(text, allow_ties=judge.allow_ties)
            return ReadReply(RequestOutcome.SUCCEEDED, verdict, reply, None, None, may_retry=False)
    if is_thought_only(text):
        message = (
            f"Reasoning used all {judge.settings.max_output_tokens} output tokens before an answer:"
            " raise max_output_tokens in the judge's settings, or lower its reasoning_effort."
        )
        return ReadReply(reply.outcome, None, reply, "reasoning", message, may_retry=False)
    return ReadReply(
        reply.outcome, None, reply, reply.error_code, reply.error_message, may_retry=True
    )


def read_or_missing(
    parse: Parser,
    judge: Judge,
    job: ProviderJob,
    body: str | None,
    kind: str | None = "matched",
) -> ReadReply:
    """Return what became of a request: its reply, our own word on it, or why there is nothing."""
    if body is None:
        return without_reply(job)
    if kind == "matched":
        return read_reply(parse, judge, body)
    error = json.loads(body)["error"]
    is_expired = kind == "expired"
    # What came too late once is not worth asking for again; a failure may pass.
    outcome = RequestOutcome.EXPIRED if is_expired else RequestOutcome.PROVIDER_ERROR
    return ReadReply(outcome, None, None, error["code"], error["message"], may_retry=not is_expired)


def without_reply(job: ProviderJob) -> ReadReply:
    """Return why a request has no reply, as far as its job's own end tells."""
    message = job.error or "No reply came for this request."
    if job.outcome == JobOutcome.FAILED:
        # Of what it never began, only want of room or credit would pass, sent again unchanged.
        code = job.error_code
        may_retry = bool(job.n_completed) or code in {*CAPACITY_CODES, OUT_OF_CREDIT}
        return ReadReply(RequestOutcome.PROVIDER_ERROR, None, None, code, message, may_retry)
    outcome = _OUTCOME_WITHOUT_REPLY.get(job.outcome, RequestOutcome.MISSING)
    code = HELD if job.error_code == HELD else None
    return ReadReply(outcome, None, None, code, message, may_retry=True)


def bill_of(
    row: Mapping[str, Any], read: ReadReply, price: Price, ended_at: datetime, *, batched: bool
) -> float:
    """Return what a request that was over by `ended_at` cost, in USD.

    An answer that does not tell its tokens, or contradicts itself about them, was paid for all the
    same: it is billed at the most it can have cost, and marked. What failed, expired or never came
    is not billed by any provider.
    """
    most = float(row["reserved_usd"] or 0.0)
    usage = read.reply.usage if read.reply is not None else None
    if usage is None or read.reply is None:
        return most if _was_answered(read) else 0.0
    if price.is_stated_by_answers and read.reply.stated_usd is not None:
        return read.reply.stated_usd
    tier = folded_tier(read.reply.service_tier or "")
    # A batch that was not judged as one is not discounted as one.
    told = cost_usd(price, usage, batched=batched and tier != "standard")
    told *= float(price.tiers.get(tier, 1))
    if price.hours and not batched:
        told *= float(price.dearest_between(row["requested_at"], ended_at))
    is_sure = evidence_of(row, read, price) is UsageEvidence.REPORTED
    return told if is_sure else max(told, most)


_PLAIN_TIERS = frozenset({"", "default", "standard", "auto", "on_demand", "none", "batch"})
"""Names of service tiers that are billed at the price; others only at a price that names them."""


def evidence_of(row: Mapping[str, Any], read: ReadReply, price: Price) -> UsageEvidence | None:
    """Return what an answer's word on what it cost is worth; None where it is no answer."""
    reply = read.reply
    if reply is None or reply.evidence is None or not (_was_answered(read) or reply.usage):
        return None
    if reply.usage is None:
        return UsageEvidence.NOT_REPORTED
    tier = folded_tier(reply.service_tier or "")
    n_answer_bytes = len((reply.text or "").encode(errors="replace"))
    is_doubtful = (
        reply.evidence is UsageEvidence.CONTRADICTORY
        or is_far_from(reply.usage, row["n_prompt_bytes"], n_answer_bytes)
        or (tier not in _PLAIN_TIERS and tier not in price.tiers)
    )
    return UsageEvidence.CONTRADICTORY if is_doubtful else UsageEvidence.REPORTED


def sent_and_counted(row: Mapping[str, Any], read: ReadReply) -> SentAndCounted | None:
    """Return what was sent and what was counted of it; None where either is not known."""
    if row["n_prompt_bytes"] is None or read.reply is None or read.reply.usage is None:
        return None
    return SentAndCounted(row["n_prompt_bytes"], read.reply.usage.prompt)


def without_the_cut(row: Mapping[str, Any], read: ReadReply, window: PromptWindow) -> ReadReply:
    """Return a reply, without its verdict where its prompt was cut to the judge's window."""
    request = sent_and_counted(row, read)
    if read.verdict is None or request is None or not window.cuts(request):
        return read
    message = (
        f"The judge was shown {request.n_tokens} tokens of a prompt of {request.n_bytes} bytes: its"
        f" server cuts prompts at {window.n_tokens} tokens. Raise its context length (num_ctx with"
        " Ollama, -c with llama.cpp, --max-model-len with vLLM, the model's context length in LM"
        " Studio), or shorten instructions and rubric."
    )
    return ReadReply(
        RequestOutcome.PROMPT_CUT, None, read.reply, "prompt_cut", message, may_retry=False
    )


def _was_answered(read: ReadReply) -> bool:
    return read.outcome in PAID_FOR


def attempt_row(
    row: Mapping[str, Any],
    read: ReadReply,
    cost: float,
    now: datetime,
    *,
    evidence: UsageEvidence | None = None,
) -> dict[str, Any]:
    """Return the row of `attempts` for a request that was read."""
    reply = read.reply
    usage = reply.usage if reply else None
    return {
        "custom_id": row["custom_id"],
        "reserved_usd": row["reserved_usd"],
        "n_prompt_bytes": row["n_prompt_bytes"],
        "in_doubt_usd": None,
        "has_usage": usage is not None if _was_answered(read) else None,
        "usage_evidence": evidence.value if evidence else None,
        "answered_model": shortened(reply.model, 200) if reply and reply.model else None,
        "answered_fingerprint": shortened(reply.fingerprint, 200)
        if reply and reply.fingerprint
        else None,
        "service_tier": shortened(reply.service_tier, 60) if reply and reply.service_tier else None,
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "comparison_id": row["comparison_id"],
        "attempt": row["attempt"],
        "submission_key": row["submission_key"],
        "judge_id": row["judge_id"],
        "prompt_sha256": row["prompt_sha256"],
        "outcome": read.outcome.value,
        "error_code": read.error_code,
        "error_message": read.error_message,
        "may_retry": read.may_retry,
        "tokens_prompt": usage.prompt if usage else 0,
        "tokens_cached": usage.cached if usage else 0,
        "tokens_cache_write": usage.cache_write_5m + usage.cache_write_1h if usage else 0,
        "tokens_completion": usage.completion if usage else 0,
        "tokens_reasoning": usage.reasoning if usage else 0,
        "cost_usd": cost,
        "requested_at": row["requested_at"],
        "completed_at": now,
    }


def verdict_row(
    row: Mapping[str, Any], verdict: Verdict, attempt: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """Return the row of `comparisons` for a request that brought a verdict."""
    sides = {"A": row["essay_a"], "B": row["essay_b"]}
    losers = {"A": row["essay_b"], "B": row["essay_a"]}
    return {
        "comparison_id": row["comparison_id"],
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "sequence": row["sequence"],
        "judge_id": row["judge_id"],
        "essay_a": row["essay_a"],
        "essay_b": row["essay_b"],
        "status": "succeeded",
        "failure_reason": None,
        "winner": verdict.winner,
        "winner_id": sides.get(verdict.winner),
        "loser_id": losers.get(verdict.winner),
        "confidence": verdict.confidence,
        "justification": verdict.justification,
        "n_attempts": row["attempt"],
        "custom_id": row["custom_id"],
        "prompt_sha256": row["prompt_sha256"],
        "tokens_prompt": attempt["tokens_prompt"] + (row["tokens_before"] or 0),
        "tokens_completion": attempt["tokens_completion"] + (row["completion_before"] or 0),
        "cost_usd": attempt["cost_usd"] + (row["cost_before"] or 0),
        "started_at": row["first_requested_at"] or row["requested_at"],
        "completed_at": now,
    }


def failure_row(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the row of `comparisons` for one that failed for good."""
    return {
        "comparison_id": row["comparison_id"],
        "batch_id": row["batch_id"],
        "wave": row["wave"],
        "sequence": row["sequence"],
        "judge_id": row["judge_id"],
        "essay_a": row["essay_a"],
        "essay_b": row["essay_b"],
        "status": "failed",
        "failure_reason": row["outcome"],
        "winner": None,
        "winner_id": None,
        "loser_id": None,
        "confidence": None,
        "justification": None,
        "n_attempts": row["attempt"],
        "custom_id": row["custom_id"],
        "prompt_sha256": row["prompt_sha256"],
        "tokens_prompt": row["tokens_prompt"],
        "tokens_completion": row["tokens_completion"],
        "cost_usd": row["cost_usd"],
        "started_at": row["started_at"],
        "completed_at": row["completed_at"] or now,
    }


def plain(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a row as JSON can hold it."""
    if row is None:
        return None
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}

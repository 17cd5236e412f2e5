"""Provider jobs: made from lines, worked out row by row, looked at, cancelled, read.

A job's rows are all worked out when it is created, into one file; each row has the moment, as a
share of the job's time, at which it is done. What a caller sees is the rows done by now, in the
order they were done. How rows are worded is each API's matter (`RowWords`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cj_pipeline.emulator import judges
from cj_pipeline.emulator.config import Fault, Settings
from cj_pipeline.emulator.damage import damaged_row
from cj_pipeline.emulator.faults import fault_of_row
from cj_pipeline.emulator.http import HTTPError
from cj_pipeline.emulator.job_timeline import ENDED, JobPhase, JobPlan, due_at, phase_at
from cj_pipeline.emulator.judges import JudgeReply, JudgeRequest, ReplyKind
from cj_pipeline.emulator.random import draw
from cj_pipeline.emulator.state import State, insert, insert_rows, next_number

_CACHE_STEP = 128
"""OpenAI counts cached prompt tokens in steps of this size."""
CACHE_S = 300.0
"""How long a prefix stays cached where no request asks for longer."""


@dataclass(frozen=True)
class Tokens:
    """What a request cost; `prompt` includes the cached and the written ones."""

    prompt: int = 0
    cached: int = 0
    written: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class RequestLine:
    """One request of a job; `problem` is set where the API refuses it once it is reached."""

    custom_id: str
    judge_request: JudgeRequest | None
    problem: HTTPError | None = None


@dataclass(frozen=True)
class RowWords:
    """How an API words a row.

    Attributes:
        answered: From the request, the answer, its cost and a number unique in the job.
        failed: From the custom id, the refusal and the number.
        untold: A failed row that says nothing about its error.
        undone: A row of an ended job that was not done: from the custom id and the phase.
    """

    answered: Callable[[RequestLine, JudgeReply, Tokens, str], dict[str, Any]]
    failed: Callable[[str, HTTPError, str], dict[str, Any]]
    untold: Callable[[str, str], dict[str, Any]]
    undone: Callable[[str, str], dict[str, Any]]


@dataclass(frozen=True)
class JobRows:
    """A job's rows, worked out but not yet kept."""

    results: str
    rows: tuple[tuple[Any, ...], ...]
    n_requests: int
    prompt_tokens: int
    prefixes: frozenset[tuple[str, float]]
    took_s: float


@dataclass(frozen=True)
class Job:
    """A job as kept."""

    job_id: str
    seq: int
    account: str
    api: str
    model: str
    name: str
    created_at: float
    request: Mapping[str, Any]
    plan: JobPlan
    n_requests: int
    prompt_tokens: int
    cancel_at: float | None
    done_at_cancel: float
    results: str
    is_deleted: bool
    n_read: int

    def phase_at(self, now: float) -> JobPhase:
        """Return its phase at a time."""
        return phase_at(self.plan, self.created_at, self.cancel_at, self.done_at_cancel, now)


@dataclass(frozen=True)
class Counts:
    """How many of a job's requests are done, how many of them failed, and what they cost."""

    completed: int
    failed: int
    tokens: Tokens


@dataclass(frozen=True)
class WorkRules:
    """What decides a job's rows, apart from its requests.

    Attributes:
        job_key: Makes the ids in the results its own.
        faults: Those that rows may suffer.
        known_prefixes: What the provider had cached before.
    """

    job_key: str
    seed: int
    settings: Settings
    faults: tuple[Fault, ...]
    qualities: Mapping[str, float]
    known_prefixes: frozenset[str]


def answer_rows(
    state: State, requests: Iterable[RequestLine], words: RowWords, rules: WorkRules
) -> JobRows:
    """Work out every row of a job into a file of its own; memory holds only their places."""
    cache = _PrefixCache(rules)
    rows: list[tuple[Any, ...]] = []
    prompt_tokens, took_s, n_requests, at = 0, 0.0, 0, 0
    with state.new_file() as (name, file):
        for number, request in enumerate(requests, start=1):
            n_requests = number
            row = _answer_row(request, number, words, rules, cache)
            prompt_tokens += row.tokens.prompt
            took_s = max(took_s, row.took_s)
            whose = (number, request.custom_id, row.is_ok)
            for copy, line in enumerate(row.lines):
                file.write(line)
                # A second line for a request costs nothing and is not counted.
                cost = row.tokens if copy == 0 else Tokens()
                rows.append((*whose, copy == 0, at, len(line), *dataclasses.astuple(cost)))
                at += len(line)
    finishes = _finishes(n_requests, rules)
    placed = tuple(
        (rules.job_key, number, custom_id, finishes[number - 1], is_ok, *rest)
        for number, custom_id, is_ok, *rest in rows
    )
    return JobRows(name, placed, n_requests, prompt_tokens, frozenset(cache.new), took_s)


def keep_job(
    db: sqlite3.Connection,
    job_rows: JobRows,
    *,
    job_id: str,
    account: str,
    api: str,
    model: str,
    name: str,
    request: Mapping[str, Any],
    plan: JobPlan,
    now: float,
    content_sha256: str,
) -> None:
    """Make a job exist, with its rows; part of the caller's transaction."""
    insert(
        db,
        "jobs",
        {
            "job_id": job_id,
            "seq": next_number(db, "jobs"),
            "account": account,
            "api": api,
            "model": model,
            "name": name,
            "created_at": now,
            "request": json.dumps(request),
            "plan": json.dumps(dataclasses.asdict(plan)),
            "n_requests": job_rows.n_requests,
            "content_sha256": content_sha256,
            "prompt_tokens": job_rows.prompt_tokens,
            "results_path": job_rows.results,
            "due_at": due_at(plan, now, None),
        },
    )
    insert_rows(db, job_rows.rows)
    ends_at = now + plan.duration_s
    if plan.fate == "completes":
        remember_prefixes(db, account, job_rows.prefixes, ends_at)


def load_job(
    db: sqlite3.Connection, api: str, account: str, job_id: str, *, missing: HTTPError
) -> Job:
    """Return a job; raises `missing` where the account has none of that id."""
    row = db.execute(
        "SELECT * FROM jobs WHERE job_id = ? AND api = ? AND account = ? AND NOT is_deleted",
        [job_id, api, account],
    ).fetchone()
    if row is None:
        raise missing
    return _job(row)


def list_jobs(db: sqlite3.Connection, api: str, account: str, now: float) -> list[Job]:
    """Return the account's jobs that lists show by now, newest first."""
    rows = db.execute(
        "SELECT * FROM jobs WHERE api = ? AND account = ? AND NOT is_deleted ORDER BY seq DESC",
        [api, account],
    )
    jobs = map(_job, rows)
    return [job for job in jobs if job.created_at + job.plan.listed_after_s <= now]


def every_job(db: sqlite3.Connection) -> list[Job]:
    """Return all jobs of all accounts and APIs, deleted ones too, oldest first."""
    return [_job(row) for row in db.execute("SELECT * FROM jobs ORDER BY seq")]


def cancel_job(db: sqlite3.Connection, job: Job, now: float) -> Job:
    """Tell a job that runs to stop; return it as it is then."""
    done = job.phase_at(now).done
    stopped = dataclasses.replace(job, cancel_at=now, done_at_cancel=done)
    db.execute(
        "UPDATE jobs SET cancel_at = ?, done_at_cancel = ?, due_at = ? WHERE job_id = ?",
        [now, done, due_at(job.plan, job.created_at, now), job.job_id],
    )
    return stopped


def take_due_jobs(db: sqlite3.Connection, api: str, now: float) -> list[tuple[Job, JobPhase]]:
    """Return the jobs that have ended by now and were not yet seen to; marks them as seen."""
    rows = db.execute(
        "SELECT * FROM jobs WHERE api = ? AND ended IS NULL AND due_at <= ?", [api, now]
    ).fetchall()
    due = [(job, job.phase_at(now)) for job in map(_job, rows)]
    db.executemany(
        "UPDATE jobs SET ended = ? WHERE job_id = ?", [(s.phase, job.job_id) for job, s in due]
    )
    return due


def list_open(db: sqlite3.Connection, api: str, account: str, now: float) -> list[Job]:
    """Return the account's jobs that have not ended by now."""
    rows = db.execute(
        "SELECT * FROM jobs WHERE api = ? AND account = ? AND ended IS NULL", [api, account]
    )
    return [job for job in map(_job, rows) if job.phase_at(now).phase not in ENDED]


def count_rows(db: sqlite3.Connection, job: Job, done: float) -> Counts:
    """Return what is done of a job, and what that cost; only successes cost."""
    row = db.execute(
        "SELECT coalesce(sum(ok), 0), count(*) - coalesce(sum(ok), 0), sum(ok * prompt),"
        " sum(ok * cached), sum(ok * written), sum(ok * completion), sum(ok * reasoning)"
        " FROM rows WHERE job_id = ? AND counted AND finish < ?",
        [job.job_id, done],
    ).fetchone()
    return Counts(row[0], row[1], Tokens(*(value or 0 for value in tuple(row)[2:])))


_WHICH_ROWS = {
    "ok": "finish < :done AND ok",
    "failed": "finish < :done AND NOT ok",
    "done": "finish < :done",
    "undone": "finish >= :done AND counted",
}


def result_size(db: sqlite3.Connection, job: Job, which: str, done: float) -> int:
    """Return how many bytes those of a job's rows are together that have a line."""
    row = db.execute(
        f"SELECT coalesce(sum(length), 0) FROM rows WHERE job_id = :job AND {_WHICH_ROWS[which]}",  # noqa: S608
        {"job": job.job_id, "done": done},
    ).fetchone()
    return int(row[0])


def result_lines(state: State, job: Job, which: str, done: float) -> Iterator[tuple[str, bytes]]:
    """Yield (custom id, line) of the chosen rows in the order they were done.

    Args:
        which: "ok", "failed", "done" (both) or "undone".
        done: See `JobPhase`.
    """
    query = (
        f"SELECT custom_id, start, length FROM rows WHERE job_id = :job AND {_WHICH_ROWS[which]}"  # noqa: S608
        " ORDER BY finish, rowid"
    )
    with state.read() as db:
        places = db.execute(query, {"job": job.job_id, "done": done}).fetchall()
    with state.file_path(job.results).open("rb") as file:
        for custom_id, start, length in places:
            file.seek(start)
            yield custom_id, file.read(length)


def known_prefixes(db: sqlite3.Connection, account: str, now: float) -> frozenset[str]:
    """Return the prefixes an account has cached."""
    rows = db.execute(
        "SELECT prefix FROM cached_prefixes WHERE account = ? AND since <= ? AND until > ?",
        [account, now, now],
    )
    return frozenset(row["prefix"] for row in rows)


def remember_prefixes(
    db: sqlite3.Connection, account: str, prefixes: Iterable[tuple[str, float]], since: float
) -> None:
    """Have prefixes cached from a moment on, for the time requested."""
    db.executemany(
        "INSERT INTO cached_prefixes VALUES (?, ?, ?, ?) ON CONFLICT (account, prefix)"
        " DO UPDATE SET since = min(since, excluded.since), until = max(until, excluded.until)",
        [(account, prefix, since, since + lasts) for prefix, lasts in prefixes],
    )


def prefix_cost(
    judge_request: JudgeRequest, prompt_tokens: int, cached: frozenset[str] | set[str], least: int
) -> tuple[int, int, tuple[str, float] | None]:
    """Return tokens read from the cache, tokens written to it, and what is cached afterwards."""
    size = min(prompt_tokens, judges.n_tokens(judge_request.prefix))
    if judge_request.cache_for_s == 0 or size < least:
        return 0, 0, None
    key = hashlib.sha256(judge_request.prefix.encode("utf-8", errors="replace")).hexdigest()
    lasts = CACHE_S if judge_request.cache_for_s is None else judge_request.cache_for_s
    if key not in cached:
        return 0, (0 if judge_request.cache_for_s is None else size), (key, lasts)
    read = size // _CACHE_STEP * _CACHE_STEP if judge_request.cache_for_s is None else size
    return read, 0, (key, lasts)


class _PrefixCache:
    """What is cached while one job is worked out.

    Where the provider caches by itself, later rows of a job profit from earlier ones. Where it has
    to be requested, they do not: rows run side by side, so each row of a cold job writes, and only
    what was cached before the job is read.
    """

    def __init__(self, rules: WorkRules) -> None:
        self._known = set(rules.known_prefixes)
        self._least = rules.settings.least_cacheable_tokens
        self._is_automatic = rules.settings.cached_in_batches
        self.new: set[tuple[str, float]] = set()

    def cost(self, judge_request: JudgeRequest, prompt_tokens: int) -> tuple[int, int]:
        if judge_request.cache_for_s is None and not self._is_automatic:
            return 0, 0
        read, written, kept = prefix_cost(judge_request, prompt_tokens, self._known, self._least)
        if kept is not None:
            self.new.add(kept)
            if judge_request.cache_for_s is None:
                self._known.add(kept[0])
        return read, written


@dataclass(frozen=True)
class _Row:
    lines: tuple[bytes, ...]
    is_ok: bool
    tokens: Tokens
    took_s: float = 0.0


_REFUSALS = {
    "status_400": HTTPError(400, "Invalid request: a fault of the emulator.", code="bad"),
    "row_without_credit": HTTPError(
        429, "Billing hard limit has been reached.", code="billing_hard_limit_reached"
    ),
    "status_429": HTTPError(429, "Rate limit reached.", code="rate_limit_exceeded"),
    "status_500": HTTPError(500, "The server had an error.", code="server_error"),
}
_FAULTY_ANSWERS: Mapping[str, tuple[ReplyKind, str]] = {
    "refusal": ("refusal", "I'm sorry, but I can't help with that."),
    "truncated_answer": ("truncated_answer", '{"winner": "A", "conf'),
    "content_filter": ("content_filter", ""),
    "invalid_output": ("invalid_output", "Both essays are interesting."),
}

_WINNER = re.compile(r'("winner": ")([^"]*)')


def _answer_row(
    request: RequestLine, number: int, words: RowWords, rules: WorkRules, cache: _PrefixCache
) -> _Row:
    when = judges.draw_key(rules.seed, request.custom_id, number)
    found = fault_of_row(rules.faults, rules.seed, when.key, number)
    fault = found.kind if found is not None else None
    row_id = f"{rules.job_key}{number:06d}"
    problem = request.problem or _REFUSALS.get(fault or "")
    reply: JudgeReply | None = None
    if problem is None and request.judge_request is not None:
        try:
            reply = judges.answer(request.judge_request, when, rules.settings, rules.qualities)
        except HTTPError as refused:
            problem = refused
    if fault == "no_error_told":
        return _Row((_line(words.untold(request.custom_id, row_id)),), False, Tokens())
    if problem is not None or reply is None or request.judge_request is None:
        problem = problem or HTTPError(400, "The request is empty.")
        return _Row((_line(words.failed(request.custom_id, problem, row_id)),), False, Tokens())
    if found is not None and fault == "missing" and found.counted_as == "failed":
        return _Row((b"",), False, Tokens(), reply.took_s)
    if faulty := _FAULTY_ANSWERS.get(fault or ""):
        reply = dataclasses.replace(reply, kind=faulty[0], text=faulty[1])
    read, written = cache.cost(request.judge_request, reply.prompt_tokens)
    tokens = Tokens(
        reply.prompt_tokens, read, written, reply.completion_tokens, reply.reasoning_tokens
    )
    lines = [_first_line(fault, words.answered(request, reply, tokens, row_id))]
    if second := _second_answer(fault, request, reply):
        # An exact duplicate bears the same ids; a contradiction or a stranger has its own.
        second_id = row_id if fault == "duplicated" else row_id + "x"
        lines.append(_line(words.answered(*second, tokens, second_id)))
    return _Row(tuple(lines), True, tokens, reply.took_s)


def _first_line(fault: str | None, row: dict[str, Any]) -> bytes:
    """Return a row's line, which a fault may have damaged or lost."""
    if fault == "missing":
        return b""
    if fault == "body_as_string" and "body" in row.get("response", {}):
        response = {**row["response"], "body": json.dumps(row["response"]["body"])}
        row = {**row, "response": response}
    line = _line(damaged_row(fault, row))
    return line[: len(line) // 2] + b"\n" if fault == "garbled" else line


def _second_answer(
    fault: str | None, request: RequestLine, reply: JudgeReply
) -> tuple[RequestLine, JudgeReply] | None:
    """Return what a second line for the same request says, where a fault makes one."""
    match fault:
        case "duplicated":
            return request, reply
        case "contradicted":
            text = _WINNER.sub(_other_winner, reply.text)
            return request, dataclasses.replace(reply, text=text)
        case "foreign":
            stranger = f"foreign-{request.custom_id}"[:64]
            return dataclasses.replace(request, custom_id=stranger), reply
        case _:
            return None


def _other_winner(match: re.Match[str]) -> str:
    return match[1] + ("B" if match[2] == "A" else "A")


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def _finishes(n_requests: int, rules: WorkRules) -> list[float]:
    """Return when each request is done, evenly spread over the job: half of it, half of them."""
    numbers = list(range(n_requests))
    if not rules.settings.in_order:
        numbers.sort(key=lambda number: draw(rules.seed, "finish", rules.job_key, number))
    finishes = [0.0] * n_requests
    for rank, number in enumerate(numbers):
        finishes[number] = (rank + 0.5) / n_requests
    return finishes


def _job(row: sqlite3.Row) -> Job:
    plan = json.loads(row["plan"])
    plan["errors"] = tuple(tuple(error) for error in plan["errors"])
    return Job(
        job_id=row["job_id"],
        seq=row["seq"],
        account=row["account"],
        api=row["api"],
        model=row["model"],
        name=row["name"],
        created_at=row["created_at"],
        request=json.loads(row["request"]),
        plan=JobPlan(**plan),
        n_requests=row["n_requests"],
        prompt_tokens=row["prompt_tokens"],
        cancel_at=row["cancel_at"],
        done_at_cancel=row["done_at_cancel"] or 0.0,
        results=row["results_path"],
        is_deleted=bool(row["is_deleted"]),
        n_read=row["n_read"],
    )

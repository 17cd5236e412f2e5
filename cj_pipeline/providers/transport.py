"""What every adapter needs on the wire: failures classified, envelopes read leniently.

The question behind every failure is whether something may have been created or paid for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import IO, Any, Literal

import httpx2

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.errors import (
    AccountRefusedError,
    CJError,
    JobTooLargeError,
    OutOfCreditError,
    ProviderRefusedError,
    ProviderUnavailableError,
    UncertainOutcomeError,
)
from cj_pipeline.judging.addresses import origin_of
from cj_pipeline.judging.provider_definitions import NO_WORDS, ErrorWords, Meaning
from cj_pipeline.providers.base import OUT_OF_CREDIT, RawLine, Reply

POLL_TIMEOUT = httpx2.Timeout(20, connect=5)
"""Polls run inside a sensor, whose whole evaluation has 60 s."""
CREATE_TIMEOUT = httpx2.Timeout(120, connect=10)
"""A create that times out is in doubt and costs a search, so it is given time."""
TRANSFER_TIMEOUT = httpx2.Timeout(300, connect=10)
"""Between two pieces of a transfer, not for the whole of it."""

CLOCK_SKEW = timedelta(hours=26)
"""How far a provider's clock may be behind ours when its list is searched: ours may be set to the
wrong day or zone, and a job that is not found there is bought again."""

MAX_PAGES = 500
"""Of a list; no account has more jobs than this in the time that is searched."""

_OUT_OF_CREDIT = re.compile(
    r"insufficient_(quota|credits?|balance|funds)|billing_(hard_limit_reached|not_active|error)"
    r"|(spend|budget|credit)_?(limit)?_?(exceeded|reached)\b|\barrear|payment required"
    r"|credit balance is too low|(out of|no|insufficient|not enough) (credits?|funds|balance)\b"
    r"|(credits?|balance|funds) (is|are|has been|have been) (depleted|exhausted|used up)"
    r"|(billing|spend(ing)?|usage|budget) (hard )?limit (has been |was )?(reached|exceeded)"
    r"|(reached|exceeded) (your|its|the) ([a-z]+ ){0,3}"
    r"((spend(ing)?|usage|budget|billing) (caps?|limits?)|budget|billing|spend(ing)?)\b"
    r"(?!.*\bper (second|minute|hour|day)\b)"
    r"|prepa(id|yment) (credits?|balance) (is|are|has|have)\b|billing account .*(disabled|closed)"
    r"|(used all (available |of )?(your )?|(doesn't|does not) have any )credits"
    r"|(enable|check your) billing\b|billing (to be |be |is not |not )?enabled",
    re.IGNORECASE,
)
"""What services say, in codes or words, when an account has to be paid for."""
_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai|AIza)[-_][\w*.-]+|[\w*-]*(?=[\w*-]{24})[\w*-]+")
"""What may be a key, or part of one, in a provider's words."""
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_FILE_NOT_THERE_YET = re.compile(
    r"\bfile\b.*(not found|cannot find|could not be found|does not exist|not ready|no such)"
    r"|(cannot find|no such|could not find).*\bfile\b",
    re.IGNORECASE | re.DOTALL,
)


SILENCES_OF_A_TRANSFER = 12
"""A whole file may take so many times the longest silence that its call allows: an hour."""
SILENCES_OF_AN_ANSWER = 2
"""And any other answer so many: a poll has to be over within its sensor's minute."""


class _BoundedBody(httpx2.SyncByteStream):
    """A body that a server may not send for ever, a byte at a time."""

    def __init__(self, body: httpx2.SyncByteStream, at_most_s: float) -> None:
        self._body = body
        self._at_most_s = at_most_s

    def __iter__(self) -> Iterator[bytes]:
        ends_at = time.monotonic() + self._at_most_s
        for piece in self._body:
            if time.monotonic() > ends_at:
                msg = f"the answer was not whole after {self._at_most_s:g} s"
                raise httpx2.ReadTimeout(msg)
            yield piece

    def close(self) -> None:
        """Close what it reads from."""
        self._body.close()


def bound_body(response: httpx2.Response) -> None:
    """Bound the time that a whole answer may take; meant as a client's response hook."""
    silence_s = response.request.extensions.get("timeout", {}).get("read")
    body = response.stream
    if silence_s is not None and isinstance(body, httpx2.SyncByteStream):
        is_transfer = silence_s == TRANSFER_TIMEOUT.read
        silences = SILENCES_OF_A_TRANSFER if is_transfer else SILENCES_OF_AN_ANSWER
        response.stream = _BoundedBody(body, silences * silence_s)


KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


def keep_key_at(origin: str, request: httpx2.Request, own_header: str | None = None) -> None:
    """Take the key off a request that goes anywhere but to a provider's own origin.

    A redirect, or an address in an answer, may lead to another host.
    """
    if origin_of(str(request.url)) != origin:
        for name in (*KEY_HEADERS, *([own_header] if own_header else [])):
            request.headers.pop(name, None)


SINGLE_CALL = "judge one comparison"
"""What a single call is named as."""


@dataclass(frozen=True)
class Call:
    """One call, as failures name it; `creates`: whether it leaves something behind; `words`: what
    its service says in errors."""

    provider: str
    action: str
    creates: bool = False
    words: ErrorWords = NO_WORDS


@dataclass(frozen=True)
class ErrorAnswer:
    """What a provider answered when it refused or failed."""

    status: int
    code: str | None
    message: str
    retry_after_s: float | None = None


def is_out_of_credit(code: str | None, message: object, *, status: int | None = None) -> bool:
    """Whether an error says that the account's credit or spending limit is used up."""
    return status == 402 or bool(_OUT_OF_CREDIT.search(f"{code or ''} {message or ''}"))


def error_meaning(
    words: ErrorWords, code: str | None, message: object, *, status: int | None = None
) -> Meaning | None:
    """Return what an error means for more than its request, in its service's words or the usual."""
    meaning = words.meaning_of(code, message)
    if meaning is None and is_out_of_credit(code, message, status=status):
        return "out_of_credit"
    return meaning


def row_without_credit(message: object) -> Reply:
    """Return the reply to a request that nothing is wrong with, sent again once somebody paid."""
    return Reply(
        custom_id=None,
        outcome=RequestOutcome.PROVIDER_ERROR,
        error_code=OUT_OF_CREDIT,
        error_message=shortened(message) if message else None,
        may_retry=True,
    )


def failed_call(call: Call, answer: ErrorAnswer) -> CJError:
    """Return what an error answer means for the caller."""
    problem = f"{call.provider} answered {answer.status} to the request to {call.action}"
    detail = f" ({answer.code})" if answer.code else ""
    meaning = error_meaning(call.words, answer.code, answer.message, status=answer.status)
    if meaning == "out_of_credit":
        return OutOfCreditError(
            f"{problem}{detail}: {shortened(answer.message).removesuffix('.')}. Add credit to the"
            " account or raise its limit, then run the same command: nothing is lost."
        )
    if meaning == "not_for_plan":
        words = shortened(answer.message).removesuffix(".")
        return AccountRefusedError(
            f"{problem}{detail}: {words}. The account's plan does not have this: choose another"
            " model, or another plan."
        )
    if meaning == "rate_limit":
        answer = replace(answer, status=429)
    if answer.status in {401, 403}:
        return _refused_account(f"{problem}{detail}", answer)
    problem += f"{detail}: {shortened(answer.message)}"
    wait_s, status = answer.retry_after_s, answer.status
    if call.creates and (answer.status in {408, 409} or answer.status >= 500):
        problem = f"{problem.removesuffix('.')}. The request may have been carried out."
        return UncertainOutcomeError(problem, retry_after_s=wait_s, status=status)
    # Right after an upload a file may not be visible everywhere yet.
    is_too_early = call.creates and bool(_FILE_NOT_THERE_YET.search(answer.message))
    if answer.status in {408, 429} or answer.status >= 500 or is_too_early:
        return ProviderUnavailableError(problem, retry_after_s=wait_s, status=status)
    if answer.status == 404 and call.action == SINGLE_CALL:
        problem = (
            f"{problem.removesuffix('.')}. Check the judge's model and base_url; `cj judge examine`"
            " says what the server has."
        )
    is_too_large = call.creates and answer.status == 413
    return JobTooLargeError(problem) if is_too_large else ProviderRefusedError(problem)


def _refused_account(problem: str, answer: ErrorAnswer) -> CJError:
    if answer.status == 401:
        # Its message is left out: some providers repeat part of the key.
        return AccountRefusedError(f"{problem}: it does not accept the key. Check the key.")
    words = shortened(_LIKE_A_KEY.sub("…", answer.message)).removesuffix(".")
    return AccountRefusedError(
        f"{problem}: {words}. Check the key, its rights and the account's plan."
    )


def lost_call(call: Call, error: BaseException) -> CJError:
    """Return what a call without a readable answer means for the caller."""
    cause = error.__cause__ if isinstance(error.__cause__, httpx2.HTTPError) else error
    problem = f"{call.provider} gave no readable answer to the request to {call.action}"
    problem += f" ({type(cause).__name__})"
    if call.creates and not isinstance(cause, _NEVER_SENT):
        return UncertainOutcomeError(f"{problem}. The request may have been carried out.")
    return ProviderUnavailableError(f"{problem}; it will be retried.")


@contextmanager
def plain_failures(call: Call) -> Iterator[None]:
    """Turn what httpx2 and the JSON reader raise into this project's errors."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
        raise lost_call(call, error) from None


LONGEST_RETRY_AFTER_S = 24 * 3600.0
"""No provider needs a longer pause; a longer one is taken for a mistake."""


def retry_after_s(headers: httpx2.Headers, now: datetime) -> float | None:
    """Return how long a provider tells us to wait, in seconds; None where it does not.

    `retry-after-ms` is exact where both are sent; some services write "120s" or "1m30s".
    """
    seconds = _seconds(headers.get("retry-after-ms", "").strip() + "ms")
    text = headers.get("retry-after", "").strip()
    if seconds is None:
        seconds = _seconds(text)
    if seconds is None:
        try:
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)


_DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:ms|s|m|h)?(?:\d+(?:\.\d+)?(?:ms|s|m))*")
_IN_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float | None:
    """Return a duration such as 120, 120s, 1m30s or 500ms in seconds; None for another text."""
    if not _DURATION.fullmatch(text):
        return None
    parts = re.findall(r"(-?(?:\d+(?:\.\d*)?|\.\d+))(ms|s|m|h|)", text)
    return sum(float(number) * _IN_SECONDS[unit] for number, unit in parts)


_STATUS_OF_WORDS = (
    (re.compile(r"rate.?limit|too.?many|overloaded.?rate|resource.?exhausted", re.I), 429),
    (re.compile(r"authentication|invalid.?api.?key|unauthorized|unauthenticated", re.I), 401),
    (re.compile(r"permission|forbidden|not.?available.?for.?plan", re.I), 403),
    (re.compile(r"invalid.?request|bad.?request|invalid.?argument|context.?length", re.I), 400),
    (re.compile(r"not.?found", re.I), 404),
)
"""What the words for an error mean where its HTTP status was 200."""


def error_within(body: object, wanted: str) -> ErrorAnswer | None:
    """Return the error that an answer of status 200 consists of; None where it is an answer.

    Args:
        body: What was sent.
        wanted: The field that an answer has, such as `choices`.
    """
    sent = mapping(body)
    error = sent.get("error")
    if not error or sent.get(wanted):
        return None
    details = mapping(error)
    message = text_or_none(details.get("message")) or (error if isinstance(error, str) else "")
    code = details.get("code")
    words = text_or_none(code) or text_or_none(details.get("type"))
    told = next((s for s in (code, details.get("status")) if _is_status(s)), None)
    status = int(told) if told is not None else _status_of(f"{words or ''} {message}")
    return ErrorAnswer(status=status, code=words, message=message)


def refuse_error_within(call: Call, body: object, wanted: str) -> None:
    """Raise what an answer of status 200 means that holds an error instead of what was wanted."""
    if (answer := error_within(body, wanted)) is not None:
        raise failed_call(call, answer)


def require_list(call: Call, page: dict[str, Any], field: str) -> None:
    """Refuse an answer that is no page of a list: taken for an empty one, it proves an absence.

    Raises:
        CJError: What an error in it means.
        ValueError: If it is something else.
    """
    refuse_error_within(call, page, field)
    if field not in page or not isinstance(page[field], list | None):
        msg = "not a list"
        raise ValueError(msg)


REQUESTS_OWN_FAULT = frozenset({400, 413, 422})
"""What is wrong with one request alone: its row's failure, as it is in a batch."""


def refuse_for_all(call: Call, body: object, wanted: str) -> None:
    """Raise an error in an answer of status 200 that concerns more than this one request."""
    answer = error_within(body, wanted)
    if answer is None:
        return
    concerns_all = error_meaning(call.words, answer.code, answer.message)
    if concerns_all or answer.status in {401, 402, 403, 404, 429}:
        raise failed_call(call, answer)


def stream_events(text: str) -> list[dict[str, Any]]:
    """Return the objects that an event stream brought, in order.

    Raises:
        ValueError: If one of them is no JSON object, such as the last of a stream that was cut.
    """
    blocks = re.split(r"\r?\n\r?\n", text)
    told = (
        "\n".join(
            line.removeprefix("data:").strip()
            for line in block.splitlines()
            if line.startswith("data:")
        )
        for block in blocks
    )
    return [json_object(data) for data in told if data and data != "[DONE]"]


def _is_status(value: Any) -> bool:
    text = str(value)
    return not isinstance(value, bool) and text.isdecimal() and 400 <= int(text[:4]) <= 599


def _status_of(words: str) -> int:
    return next((status for known, status in _STATUS_OF_WORDS if known.search(words)), 500)


def shortened(message: object, limit: int = 300) -> str:
    """Return a provider's message on one line, cut where it goes on too long."""
    words = " ".join(str(message).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        ValueError: If it is not JSON, or not an object.
    """
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
    if not isinstance(value, dict):
        msg = "not a JSON object"
        raise ValueError(msg)
    return value


def mapping(value: object) -> dict[str, Any]:
    """Return the value if it is a mapping, and an empty one otherwise: envelopes grow and vary."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[dict[str, Any]]:
    """Return the mappings of a list, with an empty one for whatever else is in it."""
    return [mapping(item) for item in value] if isinstance(value, list) else []


def text_or_none(value: object) -> str | None:
    """Return the value if it is a text with anything in it."""
    return value if isinstance(value, str) and value else None


def folded(word: object) -> str:
    """Return a word of state as it is compared: services differ in capitals, hyphens and spaces."""
    return re.sub(r"[\s-]+", "_", str(word).strip().casefold())


def count(value: object) -> int:
    """Return a count that a provider sent; 0 for whatever is not one."""
    return count_or_none(value) or 0


def count_or_none(value: object) -> int | None:
    """Return a count that a provider sent, also as text or as 12.0; None for whatever is not one.

    What cannot be read is no count of 0, which would say that nothing was done.
    """
    is_written = isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value.strip())
    if is_written or (isinstance(value, float) and value.is_integer()):
        value = int(value)  # type: ignore[call-overload]
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**53 else None


def unix_time(value: object) -> datetime | None:
    """Return a time sent as seconds since 1970; None for whatever is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def rfc3339_time(value: object) -> datetime | None:
    """Return a time sent as RFC 3339 text; None for whatever is not one."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_BYTE_ORDER_MARK = "\ufeff"


def raw_lines(file: IO[bytes], source: Literal["output", "error"]) -> Iterator[RawLine]:
    """Yield a file's lines that have anything in them.

    Only a line feed ends a line: JSON texts may hold every other line separator of Unicode. A last
    line that has no end and cannot be read is left out: the file was cut off there, and the rows
    that are missing are asked for again.
    """
    for number, line in enumerate(file, start=1):
        text = line.decode("utf-8", errors="replace").removeprefix(_BYTE_ORDER_MARK).strip()
        if text and (line.endswith(b"\n") or _is_object(text)):
            yield RawLine(source, number, text)


def require_rows(provider: str, what: str, file: IO[bytes]) -> None:
    """Refuse a download that is no result file, such as the sign-in page of a network.

    Raises:
        ProviderUnavailableError: If it has text and no line of it begins as a row does.
    """
    file.seek(0)
    has_text = False
    for line in file:
        text = line.decode("utf-8", errors="replace").removeprefix(_BYTE_ORDER_MARK).strip()
        if text.startswith("{"):
            return
        has_text = has_text or bool(text)
    if has_text:
        msg = (
            f"What {provider} sent for {what} is no result file, perhaps the sign-in page of a"
            " network: it is asked for again."
        )
        raise ProviderUnavailableError(msg)


def _is_object(text: str) -> bool:
    try:
        json_object(text)
    except ValueError:
        return False
    return True


def created_id(call: Call, answer: dict[str, Any], field: str) -> str:
    """Return the id in a create's reply.

    Raises:
        UncertainOutcomeError: If it has none: what was created has to be searched for.
    """
    new_id = text_or_none(answer.get(field))
    if new_id is None:
        msg = f"{call.provider} gave no id for the request to {call.action}, which may be done."
        raise UncertainOutcomeError(msg)
    return new_id

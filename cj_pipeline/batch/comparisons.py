"""One judge's task on a pair, from plan to outcome, and the ids that match its reply to it.

Choosing pairs is `pairing`; asking and reading the answer is `judging` and `providers`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

CUSTOM_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
"""The narrowest rule among providers (Anthropic's), so one id serves them all."""


PEOPLE_KEY = "people"
"""Stands where a request's submission key does, on the verdicts of people: nothing was sent."""

PEOPLE_FROM = 10_000_000
"""Verdicts of people count their `sequence` from here, so that planning, which counts what models
are asked, is never in their way."""


class Role(StrEnum):
    """Why a comparison was planned."""

    COVERAGE = "coverage"
    BRIDGE = "bridge"
    RESAMPLE = "resample"
    BOUNDARY = "boundary"
    INFORMATIVE = "informative"
    RANDOM = "random"
    PEOPLE = "people"


class RequestOutcome(StrEnum):
    """How a request ended; each request has exactly one once its provider job is collected."""

    SUCCEEDED = "succeeded"
    INVALID_OUTPUT = "invalid_output"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    CONTENT_FILTER = "content_filter"
    PROMPT_CUT = "prompt_cut"
    PROVIDER_ERROR = "provider_error"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"


@dataclass(frozen=True)
class ChosenPair:
    """Two essays in the order they will be shown, and why they were chosen."""

    essay_a: str
    essay_b: str
    role: Role
    expected_gain: float | None = None


@dataclass(frozen=True)
class PlannedComparison:
    """A row of `comparison_pairs`: one judge's task on a pair, shown in a stated order.

    `sequence` counts from 1 through the whole batch; `resampling_pass` is 0 for coverage.
    """

    batch_id: str
    comparison_id: str
    wave: int
    sequence: int
    judge_id: str
    essay_a: str
    essay_b: str
    role: Role
    resampling_pass: int
    expected_gain: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the judge decided, and how surely.

    `winner` is the label shown to the judge, or "tie"; `confidence` runs from 1 to 5.
    """

    winner: Literal["A", "B", "tie"]
    confidence: float | None
    justification: str


@dataclass(frozen=True)
class JudgedPair:
    """What scoring and pairing see of a finished comparison: who was shown where, who won.

    `winner` is "A", "B" or "tie", in the order shown.
    """

    essay_a: str
    essay_b: str
    winner: Literal["A", "B", "tie"]
    judge_id: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """The two essays in no order."""
        a, b = self.essay_a, self.essay_b
        return (a, b) if a < b else (b, a)


def comparison_id(batch_id: str, sequence: int) -> str:
    """Return the id of a batch's comparison number `sequence`; the same on every machine."""
    digest = hashlib.blake2b(batch_id.encode(), digest_size=5).hexdigest()
    return f"{digest}-{sequence:07d}"


def correlation_id(comparison: str) -> str:
    """Return the UUID under which a comparison is known in logs and artefacts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cj:comparison:{comparison}"))


def custom_id(submission_key: str, comparison: str, attempt: int) -> str:
    """Return the id that travels with a request: submission key, comparison, attempt."""
    return f"{submission_key[:16]}-{comparison}-{attempt}"


KEY_CONTENT, KEY_STORE = slice(0, 40), slice(40, 56)
"""Where a submission key, 64 hexadecimal digits, says what is asked, and which store asks it; the
rest says since which beginning of that store."""


def content_of(submission_key: str) -> str:
    """Return the part of a submission key that is the same in every store."""
    return submission_key[KEY_CONTENT]


def store_of(submission_key: str) -> str:
    """Return the part of a submission key that names the store."""
    return submission_key[KEY_STORE]


def of_same_content(key: str | None, submission_key: str) -> bool:
    """Whether two submission keys stand for the same requests, whoever made them."""
    return key is not None and content_of(key) == content_of(submission_key)


def split_custom_id(text: str) -> tuple[str, str, int] | None:
    """Return (submission key's first 16, comparison id, attempt); None for a foreign id."""
    match = re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{10}-\d{7,})-(\d+)", text)
    return (match[1], match[2], int(match[3])) if match else None


def max_possible_pairs(n_essays: int) -> int:
    """Return how many unordered pairs `n_essays` essays make, anchors included."""
    return n_essays * (n_essays - 1) // 2

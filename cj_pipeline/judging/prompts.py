"""What a judge is shown and how its answer is read.

The prompt is one prefix that never changes within a batch (so that providers can cache it),
then the two essays between fences that no essay can close, because each fence carries a nonce
its author could not know. Only the labels A and B reach a judge. Sending is `providers`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cj_pipeline.batch.comparisons import Verdict
from cj_pipeline.errors import InvalidOutputError

_FENCE = re.compile(
    r"<essay-a-(?P<nonce>[0-9a-f]{16})>\n(?P<a>.*?)\n</essay-a-(?P=nonce)>\n+"
    r"<essay-b-(?P=nonce)>\n(?P<b>.*?)\n</essay-b-(?P=nonce)>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Template:
    """A versioned prompt template: what a judge reads before the essays.

    `asked` and `look_for` stand above the batch's instructions and its rubric.
    """

    name: str
    system: str
    task: str
    answer: str
    asked: str = "What the students were asked:"
    look_for: str = "What to look for:"

    @property
    def words(self) -> dict[str, str]:
        """Everything in it that a judge reads, with its name; headings only if they are its own."""
        said = {name: getattr(self, name) for name in ("name", "system", "task", "answer")}
        plain = {field.name: field.default for field in fields(self)}
        headings = {name: getattr(self, name) for name in ("asked", "look_for")}
        return said | {name: text for name, text in headings.items() if text != plain[name]}


@dataclass(frozen=True)
class Prompt:
    """What one request shows a judge; `system` and `prefix` are alike for a whole batch.

    The texts are held and joined only when needed: the prompts of a wave share them, and
    50,000 joined prompts would not fit into a laptop's memory.
    """

    system: str
    prefix: str
    text_a: str
    text_b: str
    nonce: str

    @property
    def essays(self) -> str:
        """The two texts, each inside its fence."""
        return "\n\n".join(
            f"<essay-{label}-{self.nonce}>\n{text}\n</essay-{label}-{self.nonce}>"
            for label, text in (("a", self.text_a), ("b", self.text_b))
        )

    @property
    def sha256(self) -> str:
        """The checksum kept with each comparison."""
        parts = json.dumps([self.system, self.prefix, self.essays], ensure_ascii=False)
        return hashlib.sha256(parts.encode()).hexdigest()


def render_prompt(
    template: Template, *, instructions: str, rubric: str, text_a: str, text_b: str, nonce: str
) -> Prompt:
    """Return the prompt for one comparison.

    Nothing in a text can change the prompt's structure: texts are joined in, never formatted,
    and the fences carry `nonce` (16 hexadecimal digits).
    """
    prefix = _prefix(template, instructions, rubric)
    return Prompt(template.system, prefix, text_a, text_b, nonce)


@lru_cache(maxsize=64)
def _prefix(template: Template, instructions: str, rubric: str) -> str:
    """Return what comes before the essays, one string for all prompts of a batch."""
    sections = [template.task]
    if instructions:
        sections.append(f"{template.asked}\n\n{instructions}")
    if rubric:
        sections.append(f"{template.look_for}\n\n{rubric}")
    sections.append(template.answer)
    return "\n\n".join(sections)


def read_essays(prompt_text: str) -> tuple[str, str] | None:
    """Return the two texts fenced in a prompt, as shown; None where there are no fences."""
    match = _FENCE.search(prompt_text)
    return (match["a"], match["b"]) if match else None


def fence_nonce(batch_secret: str, comparison_id: str) -> str:
    """Return the nonce for one comparison: repeatable for us, unknown to any essay's author.

    `batch_secret` covers every text of the batch (its content checksum and seed), so it cannot
    be known to the author of one of them.
    """
    return hashlib.blake2b(
        comparison_id.encode(), key=batch_secret.encode()[:64], digest_size=8
    ).hexdigest()


LONGEST_JUSTIFICATION = 4000
"""In characters; what is longer is cut there."""

_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 1, 5


class VerdictReply(BaseModel):
    """The JSON a judge must answer with; anything else is a failure, never Essay A.

    Only the winner decides: a confidence on another scale or in words says nothing and is None,
    and a justification that is too long is cut.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    winner: Literal["A", "B", "tie"]
    confidence: float | str | None
    justification: str | None

    @property
    def known_confidence(self) -> float | None:
        """The confidence from 1 to 5, also as "4"; None where it is on another scale."""
        try:
            number = float(self.confidence or 0)
        except ValueError:
            return None
        return number if _LEAST_CONFIDENCE <= number <= _MOST_CONFIDENCE else None


def verdict_schema(*, allow_ties: bool) -> dict[str, object]:
    """Return the JSON schema for providers' structured output, within what all accept."""
    winners = ["A", "B", "tie"] if allow_ties else ["A", "B"]
    return {
        "type": "object",
        "properties": {
            "winner": {"type": "string", "enum": winners},
            "confidence": {"type": "number", "description": "1 (a guess) to 5 (certain)"},
            "justification": {"type": "string", "description": "One or two sentences"},
        },
        "required": ["winner", "confidence", "justification"],
        "additionalProperties": False,
    }


_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_UNENDED_THINKING = re.compile(r"\A\s*<think(?:ing)?>(?!.*</think(?:ing)?>)", re.DOTALL | re.I)
_FENCED = re.compile(r"\A```[a-zA-Z]*[ \t]*\n(?P<inside>.*)\n[ \t]*```\Z", re.DOTALL)


def parse_verdict(text: str, *, allow_ties: bool) -> Verdict:
    """Return the verdict in a judge's reply.

    A block of thoughts before it and a fence around it are taken off, as many open models write
    them; what is left has to be one JSON object and nothing else.

    Raises:
        InvalidOutputError: If the reply is not exactly one JSON object with a known winner.
    """
    try:
        reply = VerdictReply.model_validate(_only_object(text))
    except ValidationError as error:
        fields = sorted({".".join(map(str, e["loc"])) or "reply" for e in error.errors()})
        msg = f"The reply holds no verdict: {', '.join(fields)} missing or not as requested."
        raise InvalidOutputError(msg) from None
    if reply.winner == "tie" and not allow_ties:
        msg = "The reply is a tie, which this judge may not give."
        raise InvalidOutputError(msg)
    justification = (reply.justification or "")[:LONGEST_JUSTIFICATION]
    return Verdict(reply.winner, reply.known_confidence, justification)


def is_thought_only(text: str) -> bool:
    """Whether a reply has nothing but thoughts: none at all shown, or a block without its end."""
    return not text.strip() or bool(_UNENDED_THINKING.match(text))


def ends_in_white_space(text: str) -> bool:
    """Whether a reply was padded to its limit, as models do that may write nothing but JSON."""
    return text != text.rstrip()


def _only_object(text: str) -> object:
    """Return the JSON value a reply consists of; None where it is none, or says a thing twice."""
    bare, has_thought = _THINKING.subn("", text, count=1)
    fenced = _FENCED.match(bare.strip())
    inside = fenced["inside"] if fenced else bare
    if fenced and not has_thought:
        inside = _THINKING.sub("", inside, count=1)
    try:
        return json.loads(
            inside.strip(),
            object_pairs_hook=_said_once,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError):
        return None


def _no_number(word: str) -> float:
    msg = f"{word} is no JSON"
    raise ValueError(msg)


def _said_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        msg = "a name twice in one object"
        raise ValueError(msg)
    return dict(pairs)

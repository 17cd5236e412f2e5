"""The emulator's judges: which essay wins, and how the answer is worded.

The model's name selects the judge. Every answer is a function of the seed, the texts, the order
they are shown in and the request's own id, so that a repeated request varies as a real judge does
and a repeated run does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cj_pipeline.batch.comparisons import split_custom_id
from cj_pipeline.emulator.config import QualityJudge, Settings
from cj_pipeline.emulator.http import HTTPError
from cj_pipeline.emulator.random import draw
from cj_pipeline.emulator.recordings import RECORDED_MODELS, Recording, human_votes, model_verdicts
from cj_pipeline.emulator.state import text_key
from cj_pipeline.judging.prompts import read_essays

Winner = Literal["A", "B", "tie"]
ReplyKind = Literal["verdict", "invalid_output", "refusal", "truncated_answer", "content_filter"]


@dataclass(frozen=True)
class JudgeRequest:
    """What a request asks of a judge, whichever API it came by.

    Attributes:
        model: The judge's name.
        prompt: All the text the judge is shown.
        prefix: The part of it before the essays, which a provider may have cached.
        allow_ties: Whether the answer's schema has room for a tie.
        max_tokens: The longest answer wanted; None where the request does not say.
        cache_for_s: How long the prefix is to be cached; None where the provider does so
            by itself, 0 where it shall not.
        uses_tool: The tool the answer has to be given through; empty for plain text.
    """

    model: str
    prompt: str
    prefix: str
    allow_ties: bool
    max_tokens: int | None
    cache_for_s: float | None = None
    uses_tool: str = ""


@dataclass(frozen=True)
class DrawKey:
    """What makes one request differ from the next on the same pair.

    Attributes:
        seed: The emulator's.
        key: The request's own id. For this project's ids, the comparison's number and attempt
            alone, so that a comparison has one verdict whichever job or mode it is sent by, and
            whatever its batch is called.
        sequence: Its number, from 1; profiles that give exact shares count by it.
    """

    seed: int
    key: str
    sequence: int


@dataclass(frozen=True)
class JudgeReply:
    """A judge's answer: its text, its cost in tokens, and how long it took."""

    kind: ReplyKind
    text: str
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    took_s: float


@dataclass(frozen=True)
class Profile:
    """A mock of a known judge: its share of A (wins_a in every `out_of`), time and tokens."""

    wins_a: int
    out_of: int
    least_s: float
    most_s: float
    prompt_tokens: int
    completion_tokens: int


PROFILES: Mapping[str, Profile] = {
    "cj_generic_batch": Profile(1, 1, 0.0, 0.0, 5, 17),
    "eng5_lower5_gpt51_low": Profile(2, 5, 1.0, 2.0, 1000, 30),
    "eng5_anchor_gpt51_low": Profile(35, 66, 1.2, 2.0, 1100, 40),
}
_REASONS = (
    "argues more clearly and supports its points better",
    "is better organised and more developed",
    "keeps closer to the task and uses language more precisely",
    "gives stronger reasons and explains them",
)
_INVALID = (
    "I think both essays have their merits.",
    '{"winner": "C", "confidence": 3, "justification": "Neither."}',
    '{"winner": "A", "confidence": ',
    '{"confidence": 4, "justification": "The first is better."}',
)
CHARACTERS_PER_TOKEN = 4


def draw_key(seed: int, custom_id: str, number: int) -> DrawKey:
    """Return the draw key of a request with this id, the `number`-th of its job."""
    ours = split_custom_id(custom_id)
    if ours is None:
        return DrawKey(seed, custom_id, number)
    _, comparison, attempt = ours
    in_batch = int(comparison.rsplit("-", 1)[1])
    return DrawKey(seed, f"{in_batch}-{attempt}", in_batch)


def is_known(model: str, settings: Settings) -> bool:
    """Whether some judge goes by this name."""
    return (
        model in PROFILES
        or model == "human-votes"
        or _recorded_model(model) is not None
        or settings.judge_named(model) is not None
    )


def answer(
    judge_request: JudgeRequest, when: DrawKey, settings: Settings, qualities: Mapping[str, float]
) -> JudgeReply:
    """Return what the judge says.

    Args:
        judge_request: The request.
        when: See `DrawKey`.
        settings: Those in force.
        qualities: Latent quality in logits by `text_key`, where it is known.

    Raises:
        RefusedError: With 404 if no judge has this name; with 400 if it cannot judge this prompt.
    """
    if profile := PROFILES.get(judge_request.model):
        return _profile_answer(profile, judge_request, when)
    quality = settings.judge_named(judge_request.model)
    if quality is None and not is_known(judge_request.model, settings):
        msg = f"The model `{judge_request.model}` does not exist or you do not have access to it."
        raise HTTPError(404, msg, code="model_not_found")
    texts = read_essays(judge_request.prompt)
    if texts is None:
        msg = "The emulator's judge finds no two fenced essays in this prompt."
        raise HTTPError(400, msg, code="invalid_prompt")
    if quality is not None:
        return _quality_answer(quality, judge_request, when, texts, qualities)
    recorded = _recorded_model(judge_request.model)
    if recorded is None:
        return _voted_answer(judge_request, when, texts)
    return _replayed_answer(recorded, judge_request, when, texts)


@lru_cache(maxsize=256)
def estimated_quality(text: str) -> float:
    """Return a quality in logits for a text without a registered one: longer and richer is better.

    A substitute that orders texts plausibly, no measurement: it grows with the logarithm of the
    number of words (0 at 150 words), the mean word's length (0 at 4.5 letters) and the share of
    different words (0 at a half), and is kept within -4 and 4.
    """
    words = text.lower().split()
    if not words:
        return -4.0
    length = 1.2 * math.log(len(words) / 150)
    letters = 0.5 * (sum(map(len, words)) / len(words) - 4.5)
    variety = 1.5 * (len(set(words)) / len(words) - 0.5)
    return max(-4.0, min(4.0, length + letters + variety))


def n_tokens(text: str) -> int:
    """Return about how many tokens a text is: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _quality_answer(
    judge: QualityJudge,
    judge_request: JudgeRequest,
    when: DrawKey,
    texts: tuple[str, str],
    qualities: Mapping[str, float],
) -> JudgeReply:
    quality_a, quality_b = (_quality(text, qualities) for text in texts)
    logit = judge.discrimination * (quality_a - quality_b) + judge.position_bias
    share_a = 1 / (1 + math.exp(-max(-500.0, min(500.0, logit))))
    keys = tuple(_cached_key(text) for text in texts)

    def chance(what: str) -> float:
        return draw(when.seed, what, judge_request.model, *keys, when.key)

    if chance("refusal") < judge.refusal_rate:
        return _reply(judge_request, "refusal", "I'm sorry, but I can't help with that.", judge)
    if chance("invalid") < judge.invalid_rate:
        words = _INVALID[int(chance("which invalid") * len(_INVALID))]
        return _reply(judge_request, "invalid_output", words, judge)
    winner: Winner = "A" if chance("winner") < share_a else "B"
    if judge_request.allow_ties and chance("tie") < judge.tie_rate:
        winner = "tie"
    sure = 1 + 4 * abs(2 * share_a - 1)
    confidence = max(1.0, min(5.0, sure + chance("confidence") - 0.5))
    text = verdict_text(winner, round(confidence, 1), _reason(winner, chance("reason")))
    return _reply(judge_request, "verdict", text, judge)


def _voted_answer(judge_request: JudgeRequest, when: DrawKey, texts: tuple[str, str]) -> JudgeReply:
    votes = human_votes()
    first, second = sorted(keys := tuple(map(_cached_key, texts)))
    if unknown := [label for label, key in zip("AB", keys, strict=True) if key not in votes.texts]:
        msg = (
            f"human-votes has no votes on the text shown as {' and '.join(unknown)}: it answers "
            "only for the texts in cj_pipeline/emulator/data/ukp_demo_items.csv."
        )
        raise HTTPError(400, msg, code="unknown_text")
    cast = votes.winners.get((first, second), ())
    if not cast:
        msg = "human-votes has no votes on this pair of texts: they are alike or of two topics."
        raise HTTPError(400, msg, code="unknown_pair")
    # Where the request allows no tie, people who saw none decide; without them, a coin does.
    usable = (
        cast
        if judge_request.allow_ties
        else tuple(v for v in cast if v != "tie") or (first, second)
    )
    won = usable[int(draw(when.seed, "vote", first, second, when.key) * len(usable))]
    share = usable.count(won) / len(usable)
    why = f"Recorded vote: {cast.count(won)} of {len(cast)} people voted so."
    return _reply(
        judge_request, "verdict", verdict_text(_label(won, keys), round(1 + 4 * share, 1), why)
    )


def _replayed_answer(
    judge: str, judge_request: JudgeRequest, when: DrawKey, texts: tuple[str, str]
) -> JudgeReply:
    recording: Recording = model_verdicts(judge)
    keys = tuple(map(_cached_key, texts))
    verdicts = recording.winners.get((keys[0], keys[1]))
    if verdicts is None:
        msg = (
            f"`{judge_request.model}` has no recorded verdict on this pair of texts in this order."
        )
        raise HTTPError(400, msg, code="unknown_pair")
    winner = _label(verdicts[0], keys)
    if winner == "tie" and not judge_request.allow_ties:
        winner = "A" if draw(when.seed, "coin", *keys, when.key) < 0.5 else "B"
    why = f"Recorded verdict of {judge} (2023)."
    return _reply(judge_request, "verdict", verdict_text(winner, 3.0, why))


def _profile_answer(profile: Profile, judge_request: JudgeRequest, when: DrawKey) -> JudgeReply:
    """Answer as the profile does: in each block of `out_of` requests exactly `wins_a` say A.

    Which ones is shuffled by the seed, block by block.
    """
    block, place = divmod(when.sequence - 1, profile.out_of)
    own = draw(when.seed, judge_request.model, block, place)
    rank = sum(draw(when.seed, judge_request.model, block, i) < own for i in range(profile.out_of))
    winner: Winner = "A" if rank < profile.wins_a else "B"
    text = verdict_text(winner, 3.0, _reason(winner, draw(when.seed, "reason", when.key)))
    spread = draw(when.seed, "took", when.key)
    return JudgeReply(
        kind="verdict",
        text=text,
        prompt_tokens=max(profile.prompt_tokens, n_tokens(judge_request.prompt)),
        completion_tokens=max(profile.completion_tokens, n_tokens(text)),
        reasoning_tokens=0,
        took_s=profile.least_s + spread * (profile.most_s - profile.least_s),
    )


def verdict_text(winner: Winner, confidence: float, justification: str) -> str:
    """Return a verdict as the JSON that judges are to return."""
    return json.dumps(
        {"winner": winner, "confidence": confidence, "justification": justification},
        ensure_ascii=False,
    )


def cut_short(reply: JudgeReply, limit: int) -> JudgeReply:
    """Return the answer as it is when it may have only so many tokens."""
    text = reply.text[: max(0, limit - reply.reasoning_tokens) * CHARACTERS_PER_TOKEN]
    return JudgeReply(
        kind="truncated_answer",
        text=text,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=limit,
        reasoning_tokens=min(limit, reply.reasoning_tokens),
        took_s=reply.took_s,
    )


def _reply(
    judge_request: JudgeRequest, kind: ReplyKind, text: str, judge: QualityJudge | None = None
) -> JudgeReply:
    thought = judge.reasoning_tokens if judge else 0
    answered = max(judge.answer_tokens if judge else 1, n_tokens(text))
    reply = JudgeReply(kind, text, n_tokens(judge_request.prompt), answered + thought, thought, 0.0)
    if judge_request.max_tokens is not None and reply.completion_tokens > judge_request.max_tokens:
        return cut_short(reply, judge_request.max_tokens)
    return reply


def _reason(winner: Winner, chance: float) -> str:
    if winner == "tie":
        return "The two are equally good."
    return f"Essay {winner} {_REASONS[int(chance * len(_REASONS))]}."


def _label(won: str, keys: tuple[str, ...]) -> Winner:
    return "tie" if won == "tie" else "A" if won == keys[0] else "B"


def _recorded_model(model: str) -> str | None:
    if model == "recorded":
        return RECORDED_MODELS[0]
    name = model.removeprefix("recorded:")
    return name if name != model and name in RECORDED_MODELS else None


def _quality(text: str, qualities: Mapping[str, float]) -> float:
    known = qualities.get(_cached_key(text))
    return estimated_quality(text) if known is None else known


@lru_cache(maxsize=256)
def _cached_key(text: str) -> str:
    return text_key(text)

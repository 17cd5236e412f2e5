"""Two essays side by side, with every verdict on the two: for whoever doubts one of them."""

from __future__ import annotations

from dataclasses import dataclass

from cj_pipeline.outputs.feedback import EssayFeedback, EssayVerdict, essay_feedback
from cj_pipeline.outputs.html import render_page
from cj_pipeline.queries.history import BatchHistory
from cj_pipeline.scale.ranks import probability_above
from cj_pipeline.text import find_hidden, visible


@dataclass(frozen=True)
class ShownEssay:
    """One of two essays.

    Attributes:
        called: Its name as handed in, with its id.
        feedback: Score, rank and grade.
        text: As judges read it, hidden characters made visible.
        hidden: What is hidden in the text, in words; empty where nothing is.
    """

    called: str
    feedback: EssayFeedback
    text: str
    hidden: str


@dataclass(frozen=True)
class EssayPair:
    """Two essays and what judges said of the two.

    Attributes:
        first, second: In the order asked for.
        probability_above: That the first is truly better than the second.
        verdicts: On this very pair, from the first one's side, in the order requested.
    """

    first: ShownEssay
    second: ShownEssay
    probability_above: float
    verdicts: tuple[EssayVerdict, ...]


def essay_pair(history: BatchHistory, first: str, second: str) -> EssayPair:
    """Return two essays of a batch beside each other.

    Raises:
        UnknownEssayError: If the batch has no such essay.
        UnscalableBatchError: If the batch has no scores.
    """
    shown = [_shown(history, essay_id) for essay_id in (first, second)]
    return EssayPair(
        first=shown[0],
        second=shown[1],
        probability_above=probability_above(history.posterior(), first, second),
        verdicts=tuple(v for v in shown[0].feedback.verdicts if v.against == second),
    )


def render_essay_pair(history: BatchHistory, pair: EssayPair) -> str:
    """Return the page as HTML that needs nothing else."""
    return render_page(
        "essay_pair.html",
        batch_id=history.batch_id,
        language=history.settings.get("language", "en"),
        pair=pair,
        is_provisional=history.release.is_provisional,
    )


def _shown(history: BatchHistory, essay_id: str) -> ShownEssay:
    feedback = essay_feedback(history, essay_id)
    text = history.essay_by_id[essay_id]["text"] or ""
    hidden = find_hidden(text)
    return ShownEssay(
        called=visible(history.label(essay_id)),
        feedback=feedback,
        text=visible(text),
        hidden="" if hidden is None else f"The text {hidden.describe()}; judges read them.",
    )

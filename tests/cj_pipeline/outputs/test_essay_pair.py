"""Two essays side by side: what stands there is what the batch's verdicts say of the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape

import pytest

from cj_pipeline.errors import UnknownEssayError
from cj_pipeline.outputs.essay_pair import essay_pair, render_essay_pair
from cj_pipeline.queries.history import BatchHistory, read_history
from tests.support.finished_batches import SPRING, finished_batches

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>\u202etxet"


@pytest.fixture(scope="module")
def spring() -> Iterator[BatchHistory]:
    with finished_batches() as db:
        yield read_history(db, SPRING)


def test_every_verdict_on_the_two_is_there_and_no_other(spring: BatchHistory) -> None:
    """From the first one's side; turned around, wins are losses and the odds add up to one."""
    row = spring.succeeded[0]
    first, second = row["essay_a"], row["essay_b"]
    on_both = [r for r in spring.succeeded if {r["essay_a"], r["essay_b"]} == {first, second}]

    pair, turned = essay_pair(spring, first, second), essay_pair(spring, second, first)

    assert len(pair.verdicts) == len(on_both) == len(turned.verdicts)
    assert {v.against for v in pair.verdicts} == {second}
    swapped = {"won": "lost", "lost": "won", "tie": "tie"}
    assert [swapped[v.outcome] for v in pair.verdicts] == [v.outcome for v in turned.verdicts]
    assert pair.probability_above + turned.probability_above == pytest.approx(1.0)


def test_a_pair_that_nobody_saw_says_so(spring: BatchHistory) -> None:
    """Its odds follow from the other verdicts all the same."""
    seen = {frozenset((r["essay_a"], r["essay_b"])) for r in spring.succeeded}
    ids = sorted(spring.score_by_id)
    unseen = next((a, b) for a in ids for b in ids if a < b and frozenset((a, b)) not in seen)

    page = render_essay_pair(spring, essay_pair(spring, *unseen))

    assert "No judge saw these two together" in page


def test_texts_and_judges_words_are_shown_and_do_nothing(spring: BatchHistory) -> None:
    """Whatever is written in them; hidden characters are seen."""
    row = spring.succeeded[0]
    first, second = row["essay_a"], row["essay_b"]
    essays = tuple({**each, "text": HOSTILE, "name": HOSTILE} for each in spring.essays)
    said = tuple({**each, "justification": HOSTILE} for each in spring.comparisons)
    hostile = replace(spring, essays=essays, comparisons=said)

    page = render_essay_pair(hostile, essay_pair(hostile, first, second))

    assert "<script" not in page
    assert "<img" not in page
    assert page.count(escape("<script>alert(1)</script>", quote=False)) >= 4
    assert "\u202e" not in page
    assert "judges read them" in page


def test_an_essay_that_is_not_there_is_told(spring: BatchHistory) -> None:
    """By either place."""
    with pytest.raises(UnknownEssayError):
        essay_pair(spring, next(iter(spring.score_by_id)), "nobody")

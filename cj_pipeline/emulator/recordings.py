"""Judgements that were made once by people or models, looked up by the texts they were about."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cj_pipeline.emulator.state import text_key

Pair = tuple[str, str]
"""Two text keys; sorted where the order shown was not recorded."""


@dataclass(frozen=True)
class Recording:
    """Who won, by pair; a winner is a text key, or "tie".

    Attributes:
        texts: The keys of every text that was judged.
        winners: For each pair, every judgement of it.
    """

    texts: frozenset[str]
    winners: Mapping[Pair, tuple[str, ...]]


@cache
def human_votes() -> Recording:
    """Return the crowd's votes on arguments; pairs are sorted, as positions were not recorded.

    Two arguments have the same text: they are one text here, and votes on either count for it.
    Votes on the two against each other are left out, because they compare nothing.
    """
    key_of = {row["id"]: text_key(row["text"]) for row in _csv("ukp_demo_items.csv")}
    winners: dict[Pair, list[str]] = {}
    for row in _csv("ukp_demo_votes.csv"):
        first, second = sorted((key_of[row["item_a"]], key_of[row["item_b"]]))
        if first != second:
            winners.setdefault((first, second), []).append(key_of.get(row["winner"], "tie"))
    return Recording(frozenset(key_of.values()), {p: tuple(w) for p, w in winners.items()})


RECORDED_MODELS = ("gpt4", "gpt35", "claude", "bard", "vicuna-13b")
"""Whose verdicts `recorded` can replay; `recorded` alone is the first."""


@cache
def model_verdicts(judge: str) -> Recording:
    """Return one model's verdicts; pairs are in the order they were shown to it."""
    import pyarrow.parquet as pq

    items = pq.read_table(_bytes("prd_vicuna80_items.parquet"), columns=["id", "text"])
    key_of = {row["id"]: text_key(row["text"]) for row in items.to_pylist()}
    verdicts = pq.read_table(_bytes("prd_vicuna80.parquet"))
    winners = {
        (key_of[row["item_a"]], key_of[row["item_b"]]): (key_of.get(row["winner"], "tie"),)
        for row in verdicts.to_pylist()
        if row["judge"] == judge
    }
    return Recording(frozenset(key_of.values()), winners)


def _bytes(name: str) -> io.BytesIO:
    return io.BytesIO((resources.files("cj_pipeline") / "emulator" / "data" / name).read_bytes())


def _csv(name: str) -> list[dict[str, str]]:
    text = (resources.files("cj_pipeline") / "emulator" / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))

"""The demo's scores against what all recorded votes together say of the same texts."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from cj_pipeline.runtime import Runtime
from tests.support import ROOT
from tests.support.batches import open_engine, run_to_end

EXAMPLES = ROOT / "examples"
TOPICS = ("uniform-bad", "uniform-good", "school-sport")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def correlation_with_all_votes(runtime: Runtime, batch_id: str) -> float:
    """Return Spearman's correlation of a batch's scores with the published reference."""
    text = (files("cj_pipeline") / "emulator" / "data" / "ukp_demo_items.csv").read_text(
        encoding="utf-8"
    )
    reference = {
        row["id"].replace(":", "-"): float(row["human_score"])
        for row in csv.DictReader(text.splitlines(keepends=True))
    }
    with runtime.store.read() as db:
        rows = db.rows(
            "SELECT essay_id, score FROM essay_scores WHERE batch_id = $batch AND wave ="
            " (SELECT max(wave) FROM essay_scores WHERE batch_id = $batch)",
            {"batch": batch_id},
        )
    return float(
        spearmanr([row["score"] for row in rows], [reference[r["essay_id"]] for r in rows])[0]
    )


@pytest.mark.parametrize("topic", TOPICS)
def test_one_vote_on_every_pair_gives_nearly_the_order_of_all_votes(
    runtime: Runtime, topic: str
) -> None:
    """Scoring loses nothing on the way: what is left is that one voter is not five."""
    batch_id = run_to_end(
        runtime,
        EXAMPLES / topic,
        strategy="coverage",
        all_at_once=True,
        wave_size=None,
        max_pairwise_comparisons=1200,
        max_resampling_passes_for_regular_net=0,
        spend_cap_usd=10.0,
    )

    correlation = correlation_with_all_votes(runtime, batch_id)
    assert correlation > 0.95


@pytest.mark.parametrize("topic", TOPICS)
def test_the_demo_s_budget_gives_a_useful_order(runtime: Runtime, topic: str) -> None:
    """A third to a half of the pairs, one vote each."""
    batch_id = run_to_end(runtime, EXAMPLES / topic)

    assert correlation_with_all_votes(runtime, batch_id) > 0.85

"""Several judges on one batch: what each is asked, through to the end."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.operations.preview import preview_batch
from cj_pipeline.outputs.judges import panel_overview
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from tests.support.batches import open_engine, run_to_end, write_batch

_PANEL = ["quality", "quality-messages"]


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def _batch(folder: Path, **settings: Any) -> Path:
    return write_batch(folder, n_students=6, settings={"judges": _PANEL, "seed": 3, **settings})


def _asked(runtime: Runtime, batch_id: str) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows(
            "SELECT j.name, c.essay_a, c.essay_b, c.status FROM comparisons c"
            " JOIN judges j USING (batch_id, judge_id) WHERE c.batch_id = ? ORDER BY c.sequence",
            [batch_id],
        )


def test_a_panel_with_shares_covers_every_pair_between_its_judges(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Each pair is one judge's, over waves as within them; the budget buys pairs, not repeats."""
    folder = _batch(
        tmp_path / "shared",
        judge_shares={"quality": 0.6, "quality-messages": 0.4},
        max_pairwise_comparisons=15,
        wave_size=4,
        strategy="coverage",
        score_stability_threshold=None,
    )

    asked = _asked(runtime, run_to_end(runtime, folder))

    assert Counter(row["name"] for row in asked) == {"quality": 9, "quality-messages": 6}
    assert len({frozenset((row["essay_a"], row["essay_b"])) for row in asked}) == 15


def test_a_second_judge_on_a_fifth_of_the_pairs_sees_pairs_the_first_saw(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The overlap is what their agreement is measured on."""
    folder = _batch(
        tmp_path / "checked",
        judge_shares={"quality": 1.0, "quality-messages": 0.2},
        max_pairwise_comparisons=18,
        all_at_once=True,
    )

    asked = _asked(runtime, run_to_end(runtime, folder))

    pairs = {
        name: [(r["essay_a"], r["essay_b"]) for r in asked if r["name"] == name] for name in _PANEL
    }
    assert {name: len(own) for name, own in pairs.items()} == {"quality": 15, "quality-messages": 3}
    assert set(pairs["quality-messages"]) <= set(pairs["quality"])


def test_each_judge_of_a_panel_shows_its_progress_cost_and_agreement(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Both play the same qualities with their own noise, so they agree more often than not."""
    # Every pair in common: by default a fifth is, and few pairs would be left to agree on.
    batch_id = run_to_end(
        runtime, _batch(tmp_path / "both", max_pairwise_comparisons=30, common_pairs=1)
    )

    with runtime.store.read() as db:
        rows = panel_overview(read_history(db, batch_id))

    assert [(row.name, row.n_planned, row.n_open) for row in rows] == [
        ("quality", 15, 0),
        ("quality-messages", 15, 0),
    ]
    for row in rows:
        assert row.share == 1.0
        assert row.agreement is not None
        assert row.agreement.n == 15
        assert row.rank_correlation is not None
        assert row.billed_usd == pytest.approx((row.usd_per_verdict or 0) * row.n_verdicts)


def test_the_plan_prices_each_judge_by_its_share(tmp_path: Path) -> None:
    """A judge whose share leaves it out of the first wave has a price all the same."""
    folder = _batch(
        tmp_path / "planned",
        judge_shares={"quality": 0.95, "quality-messages": 0.05},
        max_pairwise_comparisons=20,
        wave_size=3,
    )

    costs = preview_batch(open_engine(tmp_path / "home"), read_batch(folder)).costs()

    assert {cost.judge.name: cost.n_comparisons for cost in costs} == {
        "quality": 19,
        "quality-messages": 1,
    }


def test_both_orders_of_a_pair_are_asked_of_the_same_judge(tmp_path: Path) -> None:
    """A judge can be consistent only with itself."""
    folder = _batch(
        tmp_path / "twice",
        judge_shares={"quality": 0.5, "quality-messages": 0.5},
        both_orders=True,
        wave_size=12,
    )

    wave = preview_batch(open_engine(tmp_path / "home"), read_batch(folder)).first_wave

    judges = {(each.essay_a, each.essay_b): each.judge_id for each in wave}
    assert len(set(judges.values())) == 2
    assert all(judges[b, a] == judge for (a, b), judge in judges.items())

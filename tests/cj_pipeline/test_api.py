"""The public functions over plain frames give what batches give, and say what they cannot read."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import cj_pipeline as cj
from cj_pipeline.batch.comparisons import JudgedPair
from cj_pipeline.errors import SettingsError, UnscalableBatchError
from cj_pipeline.scale.score_posterior import score_posterior
from cj_pipeline.scale.scoring import ScoringRules, score_verdicts
from tests.support import ROOT

IDS = tuple(f"e{i:02d}" for i in range(12))


def simulated(seed: int, per_essay: int = 12) -> dict[str, list[str]]:
    """Return verdicts by a logistic judge on random pairs of essays with known scores."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(-2, 2, len(IDS))
    frame: dict[str, list[str]] = {"essay_a": [], "essay_b": [], "winner": [], "judge": []}
    for _ in range(per_essay * len(IDS) // 2):
        a, b = rng.choice(len(IDS), 2, replace=False)
        first_wins = rng.random() < 1 / (1 + np.exp(truth[b] - truth[a]))
        frame["essay_a"].append(IDS[a])
        frame["essay_b"].append(IDS[b])
        frame["winner"].append(IDS[a] if first_wins else IDS[b])
        frame["judge"].append("j")
    return frame


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_any_frame_gives_the_scale_that_a_batch_gives(make: Any) -> None:
    """The functions are the batch's own code: same scores, errors and reliability."""
    frame = simulated(1)
    judged = [
        JudgedPair(a, b, "A" if won == a else "B", "j")
        for a, b, won in zip(frame["essay_a"], frame["essay_b"], frame["winner"], strict=True)
    ]
    batch = score_verdicts(IDS, judged, ScoringRules())

    fitted = cj.fit(make(frame), essays=IDS)

    assert fitted.essay_ids == IDS
    np.testing.assert_array_equal(fitted.verdict_scores, batch.scores)
    np.testing.assert_array_equal(fitted.scores, score_posterior(batch).scores)
    np.testing.assert_array_equal(
        fitted.covariance, score_posterior(batch).covariance_among(batch.essay_ids)
    )
    assert cj.reliability(fitted).empirical_bayes == score_posterior(batch).reliability.value


def test_every_column_of_a_fit_is_in_the_order_of_its_essays() -> None:
    """A frame made of the columns must not mix essays up."""
    fitted = cj.fit(simulated(2), essays=IDS)

    table = pd.DataFrame(fitted.as_columns()).set_index("essay_id")

    assert list(table.index) == list(IDS)
    assert (table["lower"] < table["score"]).all()
    assert (table["score"] < table["upper"]).all()
    assert table["score"].idxmax() == table["rank"].idxmin()
    assert fitted.probability_above(IDS[-1], IDS[0]) > 0.95


def test_the_winner_is_an_id_and_the_first_column_is_shown_first() -> None:
    """A verdict for the second essay is one against the first."""
    fitted = cj.fit({"essay_a": ["x", "y"], "essay_b": ["y", "x"], "winner": ["y", "y"]})

    assert dict(zip(fitted.essay_ids, fitted.scores > 0, strict=True)) == {"x": False, "y": True}


def test_every_row_that_cannot_be_read_is_named_at_once() -> None:
    """Nobody fixes a file of thousands of rows one error at a time."""
    frame = {
        "essay_a": ["x", "x", "x", None],
        "essay_b": ["y", "x", "y", "y"],
        "winner": ["z", "x", "tie", "y"],
    }

    with pytest.raises(SettingsError) as caught:
        cj.fit(frame)

    said = str(caught.value)
    assert "3 rows cannot be read" in said
    assert all(each in said for each in ("row 1: winner 'z'", "row 2: essay 'x'", "row 4:"))


def test_a_missing_column_is_named_with_those_there_are() -> None:
    """The commonest mistake is another tool's column name."""
    with pytest.raises(SettingsError, match=r"no column winner.*left, essay_b"):
        cj.fit(
            pd.DataFrame({"essay_a": [], "essay_b": [], "left": []})[["essay_a", "left", "essay_b"]]
        )


def test_parts_that_no_verdict_joins_have_no_scale() -> None:
    """Two classes side by side are not on one scale, whatever numbers a fit could give."""
    frame = {"essay_a": ["a", "c"], "essay_b": ["b", "d"], "winner": ["a", "c"]}

    with pytest.raises(UnscalableBatchError):
        cj.fit(frame)


def test_grades_need_anchors_that_are_in_the_fit() -> None:
    """A misspelt anchor must not silently leave the scale."""
    fitted = cj.fit(simulated(3))

    with pytest.raises(SettingsError, match="Unknown anchors: 'nobody'"):
        cj.grade(fitted, {"nobody": "A"}, ["B", "A"])


def test_grades_come_from_a_mapping_or_a_frame_alike() -> None:
    """Six anchors of three grades place the students between them."""
    fitted = cj.fit(simulated(4, per_essay=30), essays=IDS)
    known = {IDS[i]: grade for i, grade in ((0, "C"), (1, "C"), (5, "B"), (6, "B"), (10, "A"))}
    known[IDS[11]] = "A"
    frame = pd.DataFrame({"essay_id": list(known), "grade": list(known.values())})

    by_mapping = cj.grade(fitted, known, ["C", "B", "A"])
    by_frame = cj.grade(fitted, frame, ["C", "B", "A"])

    assert by_mapping.is_graded
    np.testing.assert_array_equal(by_mapping.probabilities, by_frame.probabilities)
    np.testing.assert_allclose(by_mapping.probabilities.sum(axis=1), 1)


def test_pairs_are_new_ones_until_all_were_compared_and_the_same_for_a_seed() -> None:
    """What was compared is not compared again while other pairs are left."""
    frame = simulated(5, per_essay=3)
    met = {frozenset(p) for p in zip(frame["essay_a"], frame["essay_b"], strict=True)}

    wave = cj.choose_pairs(IDS, 6, verdicts=frame, seed=7)

    assert wave == cj.choose_pairs(IDS, 6, verdicts=frame, seed=7)
    assert len(wave) == 6
    assert not {frozenset((p.essay_a, p.essay_b)) for p in wave} & met


def test_unconnected_verdicts_do_not_stop_the_next_pairs() -> None:
    """They are what connects them."""
    frame = {"essay_a": [IDS[0]], "essay_b": [IDS[1]], "winner": ["tie"]}

    assert cj.choose_pairs(IDS, 6, verdicts=frame)


def test_a_fit_linked_to_itself_does_not_move_and_nothing_changed() -> None:
    """The identity is the first thing a link has to get right; its unit is found on a grid."""
    fitted = cj.fit(simulated(6))

    assert cj.link(fitted, fitted, IDS[:4]).shift == pytest.approx(0, abs=0.01)
    assert [each.change for each in cj.changes(fitted, fitted)] == pytest.approx([0] * len(IDS))


def test_a_real_change_is_beyond_noise() -> None:
    """One essay that loses everything it won before has changed."""
    frame = simulated(8, per_essay=40)
    worse = {**frame, "winner": list(frame["winner"])}
    for i, pair in enumerate(zip(frame["essay_a"], frame["essay_b"], strict=True)):
        if IDS[9] in pair:
            worse["winner"][i] = next(each for each in pair if each != IDS[9])

    found = cj.changes(cj.fit(frame, essays=IDS), cj.fit(worse, essays=IDS))

    assert IDS[9] in {each.essay_id for each in found if each.is_beyond_noise and each.change < 0}


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import cj_pipeline` costs milliseconds; each function loads what it needs."""
    code = (
        "import sys, cj_pipeline, cj_pipeline.api;"
        "heavy = {'numpy', 'scipy', 'pandas', 'polars', 'duckdb', 'pyarrow', 'dagster'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )

    assert loaded.stdout.strip() == "[]"


def test_the_page_about_it_runs() -> None:
    """Every example of the page, in one session."""
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert len(examples) == 4
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/python-api.md", "exec"), names)  # noqa: S102
    assert names["grades"].is_graded

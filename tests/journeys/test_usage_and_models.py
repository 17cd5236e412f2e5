"""What answers say of their tokens and of who gave them, from a provider's row to the claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from cj_pipeline.checks import claims
from cj_pipeline.queries.history import read_history
from tests.journeys.test_missing_rows import JUDGES, Batch

UNREPORTED = ("usage_null", "usage_empty", "usage_zero")
CONTRADICTORY = ("usage_adds_up_wrong", "usage_too_large")


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        *(("quality", kind) for kind in (*UNREPORTED, *CONTRADICTORY)),
        ("quality-messages", "usage_zero"),
        ("quality-messages", "usage_adds_up_wrong"),
        ("quality-gemini", "usage_empty"),
        ("quality-gemini", "usage_too_large"),
    ],
)
def test_usage_that_cannot_be_believed_is_billed_at_the_most_and_shown(
    tmp_path: Path, judge: str, kind: str
) -> None:
    """Two of six answers: their verdicts count, their cost is what was reserved or more."""
    batch = Batch(tmp_path, judge, [{"kind": kind, "at": [2, 5]}])

    ended = batch.until_decided()

    rows = batch.rows("SELECT * FROM attempts ORDER BY cost_usd")
    doubtful = [row for row in rows if row["usage_evidence"] != "reported"]
    with batch.runtime.store.read() as db:
        finding = claims.bills_agree_with_providers(read_history(db, batch.batch_id))
    expected = "not_reported" if kind in UNREPORTED else "contradictory"
    assert ended["state"] == "succeeded"
    assert batch.n_verdicts() == 6
    assert [row["usage_evidence"] for row in doubtful] == [expected] * 2
    assert all(row["cost_usd"] >= row["reserved_usd"] for row in doubtful)
    assert all(row["cost_usd"] < row["reserved_usd"] for row in rows if row not in doubtful)
    assert sum(batch.money()) >= batch.sold_usd(batch.books())
    assert not finding.holds
    assert "billed at their maximum cost" in finding.statement
    costs = batch.row("SELECT n_without_usage, n_usage_contradictory FROM v_costs")
    assert sorted(costs.values()) == [0, 2]


@pytest.mark.parametrize("judge", JUDGES)
def test_figures_that_came_as_text_are_figures(tmp_path: Path, judge: str) -> None:
    """Some gateways write numbers as text; nothing is in doubt for that."""
    batch = Batch(tmp_path, judge, [{"kind": "usage_text"}])

    batch.until_decided()

    (evidence,) = batch.rows("SELECT DISTINCT usage_evidence FROM attempts")
    assert evidence == {"usage_evidence": "reported"}
    assert batch.money() == (pytest.approx(batch.sold_usd(batch.books())), 0)


@pytest.mark.parametrize("judge", JUDGES)
def test_another_model_that_answers_is_kept_told_and_claimed(tmp_path: Path, judge: str) -> None:
    """One answer of six is not from the model that was asked; its name is kept with the attempt."""
    batch = Batch(tmp_path, judge, [{"kind": "other_model", "at": [3]}])

    batch.until_decided()

    models = batch.rows(
        "SELECT answered_model AS model, count(*) AS n FROM attempts GROUP BY ALL ORDER BY n"
    )
    with batch.runtime.store.read() as db:
        finding = claims.judges_answer_as_asked(read_history(db, batch.batch_id))
    assert models[0] == {"model": "another-model-2", "n": 1}
    assert models[1]["n"] == 5
    assert not finding.holds
    assert "another-model-2 answered 1" in finding.statement
    assert "changed its model" in finding.statement

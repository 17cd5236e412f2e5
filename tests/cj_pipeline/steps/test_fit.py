"""A wave's scale is a matter of the verdicts, however often it is fitted."""

from __future__ import annotations

from pathlib import Path

from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.scale import fit_scale
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.ingest import ingest
from tests.support.batches import finish, open_engine, write_batch


def test_fitting_a_wave_again_gives_the_same_scores_to_the_last_bit(tmp_path: Path) -> None:
    """A later wave begins at the one before it, never at its own scores, lost or spoilt."""
    engine = open_engine(tmp_path / "home")
    folder = write_batch(
        tmp_path / "main",
        n_students=6,
        settings={
            "judges": ["quality"],
            "score_stability_threshold": None,
            "wave_size": 4,
            "max_pairwise_comparisons": 12,
        },
    )
    batch_id = ingest(engine, folder).batch_id
    finish(engine, batch_id)
    kept = "FROM essay_scores WHERE wave = 3 ORDER BY essay_id"
    with engine.store.write() as db:
        before = db.rows(kept)
        scale = fit_scale(db, load_batch(db, batch_id))
        db.execute(
            "UPDATE essay_scores SET score = -score, verdict_score = -verdict_score WHERE wave = 3"
        )

    fit(engine, batch_id)

    with engine.store.read() as db:
        assert db.rows(kept) == before
    assert scale is not None
    assert dict(zip(scale.essay_ids, scale.scores.tolist(), strict=True)) == {
        row["essay_id"]: row["verdict_score"] for row in before
    }

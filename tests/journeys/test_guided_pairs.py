"""What else may guide a batch's pairs: earlier batches, the texts, and what judges are worth."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.operations.preview import preview_batch
from cj_pipeline.outputs import report
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.history import read_history
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from tests.support.batches import open_engine, write_batch

NO_STABILITY = {"judges": ["quality"], "score_stability_threshold": None}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def judged(runtime: Runtime, folder: Path, **settings: Any) -> str:
    """Take a batch in and let the better essay, by its number, win everything planned."""
    (folder / "batch.yaml").write_text(yaml.safe_dump(NO_STABILITY | settings))
    batch_id = ingest(runtime, folder).batch_id
    while True:
        plan_wave(runtime, batch_id)
        answer(runtime, batch_id)
        fit(runtime, batch_id)
        if decide(runtime, batch_id).decision.is_final:
            return batch_id


def answer(runtime: Runtime, batch_id: str) -> None:
    """Record a verdict for every comparison planned and not answered, whatever was sent."""
    with runtime.store.write() as db:
        record = load_batch(db, batch_id)
        name = {judge.judge_id: judge.name for judge in record.judges}
        rows = db.rows(
            "SELECT * FROM comparison_pairs WHERE batch_id = ? AND comparison_id NOT IN"
            " (SELECT comparison_id FROM comparisons) ORDER BY sequence",
            [batch_id],
        )
        answered = [_answered(row, name[row["judge_id"]], runtime.clock()) for row in rows]
        db.insert("attempts", [attempt for attempt, _ in answered])
        db.insert("comparisons", [comparison for _, comparison in answered])


def _answered(
    row: dict[str, Any], judge: str, now: datetime
) -> tuple[dict[str, Any], dict[str, Any]]:
    a, b = (int(row[side].rpartition("-")[2]) for side in ("essay_a", "essay_b"))
    # "coin" decides by coin, which tells nothing of the essays.
    wins = row["sequence"] % 2 == 0 if judge == "coin" else a > b
    own = {key: row[key] for key in ("comparison_id", "batch_id", "wave", "judge_id")}
    own |= {"custom_id": f"{row['comparison_id']}-1", "prompt_sha256": ""}
    attempt = {
        "attempt": 1,
        "submission_key": "by hand",
        "outcome": "succeeded",
        "requested_at": now,
    }
    comparison = {
        "sequence": row["sequence"],
        "essay_a": row["essay_a"],
        "essay_b": row["essay_b"],
        "status": "succeeded",
        "winner": "A" if wins else "B",
        "winner_id": row["essay_a"] if wins else row["essay_b"],
        "loser_id": row["essay_b"] if wins else row["essay_a"],
        "n_attempts": 1,
        "tokens_prompt": 1,
        "tokens_completion": 1,
        "cost_usd": 0.01,
        "started_at": now,
        "completed_at": now,
    }
    return own | attempt, own | comparison


def pairs_of(runtime: Runtime, batch_id: str, wave: int) -> list[dict[str, Any]]:
    with runtime.store.read() as db:
        return db.rows(
            "SELECT * FROM comparison_pairs WHERE batch_id = ? AND wave = ? ORDER BY sequence",
            [batch_id, wave],
        )


def with_other_students(folder: Path, n: int) -> Path:
    """Give a batch students of its own; the anchors stay those every batch here has."""
    for file in (folder / "essays").iterdir():
        file.unlink()
    for number in range(1, n + 1):
        text = f"A newcomer's essay, number {number}, on what learning is. " * (1 + number % 3)
        (folder / "essays" / f"newcomer-{number:03d}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("has_spring", "settings", "told"),
    [
        (False, {}, "not in the store yet: submit it first"),
        (True, {"strategy": "coverage"}, "coverage pairs leave it aside"),
        (True, {}, "nothing is known there yet of these essays"),
    ],
)
def test_a_plan_says_why_nothing_is_known_of_its_essays(
    runtime: Runtime, tmp_path: Path, has_spring: bool, settings: dict[str, Any], told: str
) -> None:
    """A name spelled wrong is not an earlier batch without scores."""
    if has_spring:
        ingest(runtime, write_batch(tmp_path / "spring", n_students=4, settings=NO_STABILITY))
        runtime.store.publish()
    later = write_batch(tmp_path / "autumn", n_students=4, settings={"link_to": ["spring"]})

    previewed = preview_batch(runtime, read_batch(later, explicit=settings))

    assert told in str(dict(previewed.facts())["placed on"])


def test_newcomers_are_asked_about_and_anchors_known_already_left_alone(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The earlier batch has compared the anchors: each pair has a newcomer in it."""
    graded = {"scale": "eng5_np_national_9_step"}
    earlier = write_batch(tmp_path / "spring", n_students=8, n_anchors=9, settings={})
    judged(runtime, earlier, **graded, max_pairwise_comparisons=100, wave_size=100)
    later = with_other_students(
        write_batch(tmp_path / "autumn", n_students=1, n_anchors=9, settings={}), 6
    )

    linked = {**graded, "link_to": ["spring"], "max_pairwise_comparisons": 40, "wave_size": 20}
    runtime.store.publish()
    (later / "batch.yaml").write_text(yaml.safe_dump(NO_STABILITY | linked))
    previewed = preview_batch(runtime, read_batch(later))
    planned = json.loads(previewed.write_artefact(tmp_path / "plan").path.read_text())
    autumn = judged(runtime, later, **linked)

    assert [(each.essay_a, each.essay_b) for each in previewed.first_wave] == [
        (row["essay_a"], row["essay_b"]) for row in pairs_of(runtime, autumn, 1)
    ]
    assert [
        (each["essay_a_id"], each["essay_b_id"]) for each in planned["pending_comparisons"]
    ] == [(each.essay_a, each.essay_b) for each in previewed.first_wave]
    assert "spring, which has placed 9 of the essays" in str(dict(previewed.facts())["placed on"])
    rows = pairs_of(runtime, autumn, 1) + pairs_of(runtime, autumn, 2)
    assert len(rows) == 40
    for row in rows:
        assert row["expected_gain"] is not None
        assert "newcomer" in row["essay_a"] + row["essay_b"]
    asked = Counter(e for row in rows for e in (row["essay_a"], row["essay_b"]) if e[0] == "n")
    assert len(asked) == 6
    assert max(asked.values()) <= 2 * min(asked.values())


def test_an_earlier_batch_makes_the_decision_surer(runtime: Runtime, tmp_path: Path) -> None:
    """Standard errors that `precise` looks at count the earlier batch's verdicts too."""
    graded = {"scale": "eng5_np_national_9_step", "wave_size": 100}
    write_batch(tmp_path / "spring", n_students=8, n_anchors=9, settings={})
    judged(runtime, tmp_path / "spring", **graded, max_pairwise_comparisons=100)
    errors = {}
    for name, more in (("alone", {}), ("linked", {"link_to": ["spring"]})):
        folder = with_other_students(
            write_batch(tmp_path / name, n_students=1, n_anchors=9, settings={}), 6
        )
        batch = judged(runtime, folder, **graded, **more, max_pairwise_comparisons=30)
        with runtime.store.read() as db:
            row = db.one("SELECT details FROM wave_decisions WHERE batch_id = ?", [batch])
        assert row is not None
        errors[name] = row["details"]["precision"]["mean_standard_error"]

    assert errors["linked"] < errors["alone"]


def test_a_head_start_from_an_earlier_batch_guides_the_first_pairs_only(
    runtime: Runtime, tmp_path: Path
) -> None:
    """The same texts were judged before: close ones meet first, and no score knows of it."""
    write_batch(tmp_path / "pilot", n_students=12, settings={})
    judged(runtime, tmp_path / "pilot", max_pairwise_comparisons=60, wave_size=60)
    folder = write_batch(
        tmp_path / "main",
        n_students=12,
        settings=NO_STABILITY | {"head_start": {"batch": "pilot"}, "strategy": "coverage"},
    )

    plan_wave(runtime, ingest(runtime, folder).batch_id)
    runtime.store.publish()
    previewed = preview_batch(runtime, read_batch(folder)).first_wave

    asked = [(r["essay_a"], r["essay_b"]) for r in pairs_of(runtime, "main", 1)]
    apart = [abs(int(a[-3:]) - int(b[-3:])) for a, b in asked]
    assert sum(apart) / len(apart) <= 2
    # The preview shows all waves that are sent together.
    first = [each for each in previewed if each.wave == 1]
    assert [(each.essay_a, each.essay_b) for each in first] == asked


def test_a_head_start_from_the_texts_is_planned_as_previewed(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Both look at the same texts in the same order."""
    folder = write_batch(
        tmp_path / "main", n_students=12, settings=NO_STABILITY | {"head_start": "texts"}
    )

    plan_wave(runtime, ingest(runtime, folder).batch_id)

    asked = [(r["essay_a"], r["essay_b"]) for r in pairs_of(runtime, "main", 1)]
    previewed = preview_batch(runtime, read_batch(folder)).first_wave
    assert [(each.essay_a, each.essay_b) for each in previewed] == asked


def test_a_head_start_from_a_batch_nobody_has_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    """It would guide nothing, in silence."""
    folder = write_batch(
        tmp_path / "main", n_students=4, settings=NO_STABILITY | {"head_start": {"batch": "gone"}}
    )

    with pytest.raises(BatchProblemsError, match="no batch 'gone' with scores"):
        ingest(runtime, folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"judge_choice": "by_worth"}, "needs several judges"),
        ({"rough_order": [["student-001"]], "head_start": "texts"}, "a head start already"),
        ({"rough_order": [["nobody"]]}, "no essay has the id 'nobody'"),
        ({"goal": "grades"}, "goal: grades needs a scale"),
        ({"precise": {"misgrading": 0.2}}, "precise: misgrading needs a scale"),
        ({"goal": "top(4)"}, r"top\(4\) leaves out none of 4 students"),
        ({"goal": "cut(C)"}, r"goal: cut\(C\) needs a scale"),
        ({"goal": "best"}, "is no goal: say ranking, grades, top"),
        ({"precise": {"misplaced": 0.2}}, "precise: misplaced needs `goal: top"),
        ({"goal": "top(2)", "precise": {"gain_per_usd": 1}}, "counts ranks or grades"),
    ],
)
def test_what_cannot_guide_is_told(
    runtime: Runtime, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """A setting that has no effect is a batch that does something else."""
    folder = write_batch(tmp_path / "main", n_students=4, settings=NO_STABILITY | settings)

    with pytest.raises(BatchProblemsError, match=words):
        ingest(runtime, folder)


def test_the_judge_whose_verdicts_tell_most_per_dollar_is_asked_most(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Ten essays, two judges at one price, of whom one decides by coin: it keeps a tenth."""
    folder = write_batch(
        tmp_path / "panel",
        n_students=10,
        settings=NO_STABILITY
        | {
            "judges": ["sharp", "coin"],
            "judge_choice": "by_worth",
            "max_pairwise_comparisons": 90,
            "wave_size": 45,
            "max_resampling_passes_for_regular_net": 2,
        },
    )
    (folder / "judges").mkdir()
    for name in ("sharp", "coin"):
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
        )
    batch_id = ingest(runtime, folder).batch_id

    shares = []
    for wave in (1, 2):
        plan_wave(runtime, batch_id)
        with runtime.store.read() as db:
            record = load_batch(db, batch_id)
        name = {judge.judge_id: judge.name for judge in record.judges}
        asked = Counter(name[row["judge_id"]] for row in pairs_of(runtime, batch_id, wave))
        shares.append(asked["sharp"] / asked.total())
        answer(runtime, batch_id)
        fit(runtime, batch_id)
        decide(runtime, batch_id)

    assert shares[0] == pytest.approx(0.5, abs=0.02)
    assert shares[1] >= 0.9
    with runtime.store.read() as db:
        history = read_history(db, batch_id)
    assert [row["wave"] for row in history.judge_choices] == [2, 2]
    sharp, coin = history.judge_choices
    assert (name[sharp["judge_id"]], sharp["share"]) == ("sharp", pytest.approx(0.9))
    assert sharp["discrimination"] > 2 * coin["discrimination"]
    assert sharp["information_per_usd"] > 4 * coin["information_per_usd"]
    page = report.render_history(history)
    table = page[page.index("Which judges wave 2 went to") :]
    assert table.index("90\u00a0%") < table.index("10\u00a0%")

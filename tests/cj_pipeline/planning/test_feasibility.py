"""What is let through ends with scores; what is refused could not have, and the numbers mend it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cj_pipeline.batch.options import Strategy
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.intake.batch_folder import read_batch
from cj_pipeline.live.profiles import Profile
from cj_pipeline.operations.preflight import PreflightItem, is_ready, preflight_folder
from cj_pipeline.planning.feasibility import comparisons_to_join, obstacles
from cj_pipeline.provider_jobs.requests import BatchTexts
from cj_pipeline.queries.batch_record import BatchRecord, record_of
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.ingest import ingest, load_judges
from tests.support.batches import finish_judging, open_engine, write_batch

N_BATCHES = 100 if os.environ.get("CJ_TESTS") == "nightly" else 10
"""Drawn, each judged to its end."""

PANEL = ("quality", "cj-generic-batch", "eng5-lower5-gpt51-low", "eng5-anchor-gpt51-low")


def record(tmp_path: Path, n_students: int, **given: Any) -> BatchRecord:
    """Return the record of a made-up batch, before anything was requested."""
    folder = write_batch(tmp_path / "batch", n_students=n_students, settings=given)
    batch = read_batch(folder)
    return record_of(batch, load_judges(batch), "execute")


def texts(of: BatchRecord) -> BatchTexts:
    """Return short texts for a record's essays."""
    return BatchTexts("Write.", "", dict.fromkeys(of.essay_ids, "A text of some length. " * 20))


def told(of: BatchRecord, profile: Profile | None = None) -> dict[str, str]:
    """Return what stands in a batch's way, by what it is about."""
    return {each.about: each.finding for each in obstacles(of, profile or Profile(), texts(of))}


def findings(examined: list[PreflightItem], about: str) -> list[str]:
    """Return what preflight says about something."""
    return [each.finding for each in examined if each.about == about]


def test_ten_judges_on_the_same_pairs_spend_ten_verdicts_a_pair(tmp_path: Path) -> None:
    """66 comparisons are seven pairs for ten judges, and twelve essays need eleven."""
    names = [f"judge-{number}" for number in range(10)]
    folder = write_batch(
        tmp_path / "batch",
        n_students=12,
        settings={"judges": names, "common_pairs": 1.0, "max_pairwise_comparisons": 66},
    )
    (folder / "judges").mkdir()
    for name in names:
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
        )
    _, examined = preflight_folder(open_engine(tmp_path / "home"), folder)

    (finding,) = findings(examined, "budget")

    assert not is_ready(examined)
    assert "66 comparisons" in finding
    assert "11 pairs" in finding
    assert "max_pairwise_comparisons to at least 101" in finding
    enough = {"max_pairwise_comparisons": 101}
    _, again = preflight_folder(open_engine(tmp_path / "home"), folder, explicit=enough)
    assert is_ready(again), again


def test_ten_comparisons_cannot_join_thirty_essays(tmp_path: Path) -> None:
    """The number that does is told, and is the smallest."""
    doomed = record(tmp_path, 30, judges=["quality"], max_pairwise_comparisons=10)

    assert "max_pairwise_comparisons to at least 29" in told(doomed)["budget"]
    assert comparisons_to_join(doomed) == 29


def test_a_wave_of_one_never_shows_a_pair_in_both_orders(tmp_path: Path) -> None:
    """No budget helps there, so that number is not offered."""
    doomed = record(tmp_path, 6, judges=["quality"], both_orders=True, wave_size=1)

    finding = told(doomed)["budget"]

    assert "max_pairwise_comparisons to" not in finding
    assert "leave both_orders out" in finding
    assert "wave_size to at least 2" in finding


@pytest.mark.parametrize("ttl", [60.0, 30.0])
def test_limits_are_shared_by_judges_of_one_model(tmp_path: Path, ttl: float) -> None:
    """Each judge alone would keep the limit; both together do not."""
    folder = write_batch(
        tmp_path / "batch",
        n_students=20,
        settings={
            "judges": ["strict", "mild"],
            "common_pairs": 1.0,
            "llm_batching_mode": "per_request",
        },
    )
    (folder / "judges").mkdir()
    for name in ("strict", "mild"):
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
        )
    batch = read_batch(folder)
    both = record_of(batch, load_judges(batch), "execute")
    profile = Profile(rate_limit=10, rate_window_seconds=60.0, result_ttl_seconds=ttl - 1)

    finding = told(both, profile)["limits"]

    assert "2 judges" in finding
    assert "20 comparisons" in finding
    assert "result_ttl_seconds to at least 60" in finding
    assert "limits" not in told(both, replace(profile, result_ttl_seconds=60.0))
    alone = replace(both, judges=both.judges[:1], settings=_with(both, judges=("strict",)))
    assert "limits" not in told(alone, profile)


def test_several_judges_wait_for_each_others_permits(tmp_path: Path) -> None:
    """The last chunk's permits come after those of the others."""
    folder = write_batch(
        tmp_path / "batch",
        n_students=20,
        settings={"judges": ["one", "two", "three"], "llm_batching_mode": "per_request"},
    )
    (folder / "judges").mkdir()
    for name in ("one", "two", "three"):
        (folder / "judges" / f"{name}.yaml").write_text(
            f"name: {name}\nprovider: emulator\nmodel: quality\n"
        )
    batch = read_batch(folder)
    panel = record_of(batch, load_judges(batch), "execute")
    profile = Profile(
        rate_limit=4,
        rate_window_seconds=60.0,
        timeout_seconds=30.0,
        wait_timeout_seconds=120.0,
        chunk_size=4,
    )

    assert "wait_timeout_seconds to at least 210" in told(panel, profile)["limits"]
    assert "limits" not in told(panel, replace(profile, wait_timeout_seconds=210.0))


def _with(of: BatchRecord, **changed: object) -> Any:
    return of.settings.model_copy(update=changed)


def test_a_deadline_before_the_providers_window_is_refused(tmp_path: Path) -> None:
    """A job may take a day; a batch that is ended after an hour buys answers it never reads."""
    (judge,) = [
        path.stem
        for path in Path("cj_pipeline/judging/judge_definitions").glob("*.yaml")
        if "provider: openai\n" in path.read_text()
    ][:1]
    hasty = record(tmp_path, 6, judges=[judge], stall_after_s=3600)

    assert "stall_after_s to at least 86400" in told(hasty)["deadlines"]
    patient = replace(hasty, settings=_with(hasty, stall_after_s=86_400.0))
    assert "deadlines" not in told(patient)
    single = replace(hasty, settings=_with(hasty, llm_batching_mode="per_request"))
    assert "deadlines" not in told(single)


def test_a_spend_cap_that_ends_the_batch_before_its_budget_is_refused(tmp_path: Path) -> None:
    """The cap that is offered is enough, and a little less is not."""
    dear = record(tmp_path, 10, judges=["quality"], spend_cap_usd=1e-5)

    finding = told(dear)["money"]
    enough = float(finding.split("spend_cap_usd to at least ")[1].split(",")[0].split(" ")[0])

    assert "money" not in told(replace(dear, settings=_with(dear, spend_cap_usd=enough)))
    assert "money" in told(replace(dear, settings=_with(dear, spend_cap_usd=0.9 * enough)))


def test_intake_refuses_and_a_person_may_insist(tmp_path: Path) -> None:
    """Whoever opens it; and the store keeps what was known when it was started anyway."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(
        tmp_path / "doomed",
        n_students=8,
        settings={"judges": ["quality"], "max_pairwise_comparisons": 3},
    )

    with pytest.raises(BatchProblemsError, match="at least 7"):
        ingest(runtime, folder)
    ingest(runtime, folder, explicit={"anyway": True})
    assert not ingest(runtime, folder).is_new
    finish_judging(runtime, "doomed")

    with runtime.store.read() as db:
        row = db.one("SELECT end_reason, metadata FROM batches WHERE batch_id = 'doomed'")
    assert row is not None
    assert row["end_reason"] == "unscalable"
    assert "at least 7" in row["metadata"]["started_despite"][0]


def panels() -> st.SearchStrategy[dict[str, Any]]:
    """Return judges and how pairs are shared out among them."""
    judges = st.lists(st.sampled_from(PANEL), min_size=1, max_size=4, unique=True)
    return st.tuples(judges, st.sampled_from([0.0, 0.2, 0.5, 1.0])).map(
        lambda drawn: {"judges": drawn[0], "common_pairs": drawn[1]}
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int, dict[str, Any]]:
    """Return students, anchors and settings: as often too small a budget as enough."""
    n_students = draw(st.integers(1, 9))
    n_anchors = draw(st.integers(0 if n_students > 1 else 1, 5))
    n = n_students + n_anchors
    chosen = draw(panels())
    chosen["max_pairwise_comparisons"] = draw(st.integers(1, 3 * n))
    chosen["strategy"] = draw(st.sampled_from(get_args(Strategy)))
    chosen["both_orders"] = draw(st.booleans())
    chosen["seed"] = draw(st.integers(0, 99))
    chosen["min_resampling_net_size"] = draw(st.sampled_from([2, 3, 5]))
    shape = draw(st.sampled_from(["usual", "all_at_once", "wave_size"]))
    if shape == "all_at_once":
        chosen["all_at_once"] = True
    elif shape == "wave_size":
        chosen["wave_size"] = draw(st.integers(1, 6))
    if draw(st.booleans()):
        chosen["spend_cap_usd"] = draw(st.floats(1e-4, 0.05))
    if n_anchors:
        chosen["scale"] = "eng5_np_national_9_step"
    return n_students, n_anchors, chosen


@pytest.mark.slow
@settings(max_examples=N_BATCHES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(batches())
def test_what_preflight_lets_through_ends_with_scores(
    drawn: tuple[int, int, dict[str, Any]],
) -> None:
    """And what it refuses, started anyway, ends without."""
    n_students, n_anchors, chosen = drawn
    place = Path(tempfile.mkdtemp())
    try:
        folder = write_batch(
            place / "batch", n_students=n_students, n_anchors=n_anchors, settings=chosen
        )
        runtime = open_engine(place / "home")
        _, examined = preflight_folder(runtime, folder)
        problems = [each for each in examined if each.standing == "problem"]
        assert all(each.about in {"budget", "money"} for each in problems), problems
        outcome = _outcome(runtime, folder, anyway=bool(problems))
        if not problems:
            assert outcome[0] == "succeeded", f"{outcome} {n_students} {n_anchors} {chosen}"
        elif any(each.about == "budget" for each in problems):
            assert outcome[0] == "failed", (outcome, problems, chosen)
    finally:
        shutil.rmtree(place)


def _outcome(runtime: Runtime, folder: Path, *, anyway: bool) -> tuple[str, str]:
    batch_id = ingest(runtime, folder, explicit={"anyway": True} if anyway else None).batch_id
    finish_judging(runtime, batch_id)
    with runtime.store.read() as db:
        row = db.one("SELECT state, end_reason FROM batches WHERE batch_id = ?", [batch_id])
    assert row is not None
    return row["state"], row["end_reason"]

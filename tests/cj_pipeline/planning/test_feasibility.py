"""What is let through ends with scores; what is refused could not have, and the numbers mend it."""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cj_pipeline.batch.options import Strategy
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.grading.linking import MIN_SHARED
from cj_pipeline.installation import INSTALLATION_FILE
from cj_pipeline.intake.batch_folder import Batch, read_batch
from cj_pipeline.intake.settings import BatchSettings
from cj_pipeline.judging.judges import load_judge
from cj_pipeline.live.profiles import Profile
from cj_pipeline.operations.preflight import PreflightItem, is_ready, preflight_folder
from cj_pipeline.planning.feasibility import comparisons_to_join, obstacles, usd_needed_by
from cj_pipeline.planning.obstacles import LEAST_SHARED_ANCHORS
from cj_pipeline.provider_jobs.requests import BatchTexts
from cj_pipeline.queries.batch_record import BatchRecord, record_of
from cj_pipeline.queries.forecast_plan import plan_ahead
from cj_pipeline.steps.ingest import ingest, load_judges
from cj_pipeline.stopping.continuation import FAILURES
from tests.support.batches import finish_judging, open_engine, write_batch
from tests.support.simulated_batch import SimulatedBatch

N_BATCHES = 50 if os.environ.get("CJ_TESTS") == "nightly" else 4
"""Drawn, each judged to its end in a store."""

N_SIMULATED = 2000 if os.environ.get("CJ_TESTS") == "nightly" else 60
"""The same without one."""

PANEL = ("quality", "cj-generic-batch", "eng5-lower5-gpt51-low", "eng5-anchor-gpt51-low")


def record(tmp_path: Path, n_students: int, **given: Any) -> BatchRecord:
    """Return the record of a made-up batch, before anything was requested."""
    folder = write_batch(tmp_path / "batch", n_students=n_students, settings=given)
    batch = read_batch(folder)
    return record_of(batch, load_judges(batch), "execute")


def texts(of: BatchRecord) -> BatchTexts:
    """Return short texts for a record's essays."""
    return BatchTexts("Write.", "", dict.fromkeys(of.essay_ids, "A text of some length. " * 20))


def texts_of(batch: Batch) -> BatchTexts:
    """Return what a batch's judges read."""
    shown = {essay.essay_id: essay.shown_text for essay in batch.essays}
    return BatchTexts(batch.document("instructions"), batch.document("rubric"), shown)


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


@pytest.mark.parametrize(
    ("policy", "budget", "warned"), [("drop", 24, True), ("drop", 44, False), ("keep", 24, False)]
)
def test_a_budget_without_room_for_dropped_pairs_is_warned_of(
    policy: str, budget: int, warned: bool, tmp_path: Path
) -> None:
    """Eleven of twelve pairs have to stay; the numbers that give room are the last that warn."""
    folder = write_batch(
        tmp_path / "batch",
        n_students=12,
        settings={
            "both_orders": True,
            "inconsistent_verdicts": policy,
            "max_pairwise_comparisons": budget,
        },
    )

    _, examined = preflight_folder(open_engine(tmp_path / "home"), folder)

    (budgeted,) = [each for each in examined if each.about == "budget"]
    assert budgeted.standing == ("warning" if warned else "ready")
    assert ("at least 44, or inconsistent_verdicts to halve" in budgeted.finding) == warned


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


@st.composite
def panels(draw: st.DrawFn) -> dict[str, Any]:
    """Return judges and how pairs are shared out among them."""
    judges = draw(st.lists(st.sampled_from(PANEL), min_size=1, max_size=4, unique=True))
    shape = draw(st.sampled_from(["common_pairs", "judge_shares", "by_worth"]))
    if shape == "judge_shares":
        shares = draw(st.lists(st.sampled_from([0.05, 0.3, 0.5, 1.0]), min_size=4, max_size=4))
        given = dict(zip(judges, shares, strict=False))
        given[judges[0]] = 1.0 if math.fsum(given.values()) < 1 else given[judges[0]]
        return {"judges": judges, "judge_shares": given}
    if shape == "by_worth" and len(judges) > 1:
        return {"judges": judges, "judge_choice": "by_worth"}
    return {"judges": judges, "common_pairs": draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))}


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int, dict[str, Any]]:
    """Return students, anchors and settings: as often too small a budget as enough.

    Not among them is `inconsistent_verdicts: drop`: what it leaves is up to the judges.
    """
    n_students = draw(st.integers(1, 9))
    n_anchors = draw(st.integers(0 if n_students > 1 else 1, 5))
    n = n_students + n_anchors
    chosen = draw(panels())
    chosen["max_pairwise_comparisons"] = draw(st.integers(1, 3 * n))
    chosen["strategy"] = draw(st.sampled_from(get_args(Strategy)))
    chosen["both_orders"] = draw(st.booleans())
    chosen["may_repeat_pairs"] = draw(st.booleans())
    chosen["random_share"] = draw(st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    chosen["seed"] = draw(st.integers(0, 99))
    chosen["min_resampling_net_size"] = draw(st.sampled_from([2, 3, 5]))
    chosen["max_resampling_passes_for_small_net"] = draw(st.sampled_from([0, 4]))
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


def drawn_record(n_students: int, n_anchors: int, chosen: dict[str, Any]) -> BatchRecord:
    """Return the record such a batch would have, without a folder."""
    ids = [f"student-{number}" for number in range(n_students)]
    anchors = {f"anchor-{number}": str(1 + number) for number in range(n_anchors)}
    return BatchRecord(
        batch_id="drawn",
        state="running",
        end_reason=None,
        settings=BatchSettings.model_validate(chosen),
        content_sha256="",
        correlation_id="",
        runner_mode="execute",
        metadata={},
        essay_ids=(*ids, *anchors),
        anchor_grades=anchors,
        judges=tuple(load_judge(name) for name in sorted(chosen["judges"])),
    )


@pytest.mark.slow
@settings(max_examples=N_SIMULATED, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(batches(), st.integers(0, 999))
def test_what_is_let_through_ends_with_scores_however_its_verdicts_fall(
    drawn: tuple[int, int, dict[str, Any]], luck: int
) -> None:
    """And what cannot join its essays ends without: by hundreds of batches, simulated."""
    n_students, n_anchors, chosen = drawn
    of = drawn_record(n_students, n_anchors, chosen)
    found = told(of)
    if "budget" in found or "money" in found:
        of = replace(of, settings=_with(of, spend_cap_usd=None))

    reason = SimulatedBatch(of, texts(of), random.Random(luck)).end()  # noqa: S311

    assert (reason in FAILURES) is ("budget" in found), (reason, found, chosen)


@pytest.mark.slow
@settings(max_examples=N_BATCHES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(batches())
def test_what_preflight_lets_through_ends_with_scores(
    drawn: tuple[int, int, dict[str, Any]],
) -> None:
    """The same in a store, from a folder: intake refuses what preflight does."""
    n_students, n_anchors, chosen = drawn
    place = Path(tempfile.mkdtemp())
    try:
        folder = write_batch(
            place / "batch", n_students=n_students, n_anchors=n_anchors, settings=chosen
        )
        runtime = open_engine(place / "home")
        _, examined = preflight_folder(runtime, folder)
        problems = [each for each in examined if each.standing == "problem"]
        about = {each.about for each in problems}
        assert about <= {"budget", "money", "anchors"}, problems
        if problems:
            with pytest.raises(BatchProblemsError, match=min(about)):
                ingest(runtime, folder)
            return
        batch_id = ingest(runtime, folder).batch_id
        finish_judging(runtime, batch_id)
        with runtime.store.read() as db:
            row = db.one("SELECT state, end_reason FROM batches WHERE batch_id = ?", [batch_id])
        assert row is not None
        assert row["state"] == "succeeded", (row, drawn)
    finally:
        shutil.rmtree(place)


def test_anchors_of_one_grade_never_give_grades(tmp_path: Path) -> None:
    """Nobody names a scale to end with ranks; who does says so."""
    one = write_batch(
        tmp_path / "one",
        n_students=4,
        n_anchors=1,
        settings={"judges": ["quality"], "scale": "eng5_np_national_9_step"},
    )
    runtime = open_engine(tmp_path / "home")

    _, examined = preflight_folder(runtime, one)

    (finding,) = findings(examined, "anchors")
    assert "add anchors of 1 more" in finding
    with pytest.raises(BatchProblemsError, match="never give grades"):
        ingest(runtime, one)


@pytest.mark.parametrize(
    ("ceiling", "way"),
    [("usd_per_batch", "max_pairwise_comparisons to at most"), ("usd_per_day", "wave_size")],
)
def test_a_ceiling_that_a_batch_would_wait_at_for_ever_is_told_beforehand(
    tmp_path: Path, ceiling: str, way: str
) -> None:
    """Its first wave fits a batch's ceiling, and its last does not; no wave fits the day's."""
    runtime = open_engine(tmp_path / "home")
    folder = write_batch(
        tmp_path / "dear",
        n_students=8,
        settings={"judges": ["quality"], "max_pairwise_comparisons": 28},
    )
    batch = read_batch(folder)
    need = usd_needed_by(record_of(batch, load_judges(batch), "execute"), texts_of(batch))
    fits = need.usd if ceiling == "usd_per_batch" else need.largest_wave_usd
    laid_down = runtime.home / INSTALLATION_FILE
    laid_down.parent.mkdir(exist_ok=True)

    laid_down.write_text(f"ceilings: {{{ceiling}: {0.99 * fits}}}\n")
    _, examined = preflight_folder(runtime, folder)

    (finding,) = findings(examined, "ceiling")
    assert way in finding
    with pytest.raises(BatchProblemsError, match="It would wait there without end"):
        ingest(runtime, folder)
    laid_down.write_text(f"ceilings: {{{ceiling}: {1.3 * fits}}}\n")
    assert is_ready(preflight_folder(runtime, folder)[1])


def test_a_link_needs_an_earlier_batch_with_scores_and_three_anchors_in_common(
    tmp_path: Path,
) -> None:
    """Told before anything is bought, in preflight as at intake."""
    runtime = open_engine(tmp_path / "home")
    graded = {"judges": ["quality"], "scale": "eng5_np_national_9_step"}
    ingest(runtime, write_batch(tmp_path / "spring", n_students=4, n_anchors=4, settings=graded))
    few = write_batch(
        tmp_path / "few", n_students=4, n_anchors=4, settings=graded | {"link_to": ["spring"]}
    )
    shared = few / "anchors.csv"
    enough = shared.read_text()
    lines = enough.splitlines()
    shared.write_text("\n".join([*lines[:3], lines[3].replace("number 3", "number three")]) + "\n")

    def told_of_links() -> list[str]:
        return findings(preflight_folder(runtime, few)[1], "link_to")

    assert "shares 2 anchors" in told_of_links()[0]
    assert "at least 1 more" in told_of_links()[0]
    with pytest.raises(BatchProblemsError, match="shares 2 anchors"):
        ingest(runtime, few)
    shared.write_text(enough)
    assert told_of_links() == []
    with runtime.store.write() as db:
        db.execute("UPDATE batches SET state = 'cancelled' WHERE batch_id = 'spring'")
    assert "is cancelled" in told_of_links()[0]
    (few / "batch.yaml").write_text(yaml.safe_dump(graded | {"link_to": ["winter"]}))
    assert "no other batch 'winter'" in told_of_links()[0]
    assert LEAST_SHARED_ANCHORS == MIN_SHARED


def test_a_small_nets_waves_are_its_passes(tmp_path: Path) -> None:
    """Five essays in whole passes of ten pairs are foreseen in fours, not in waves of two."""
    net = record(
        tmp_path,
        5,
        judges=["quality"],
        max_pairwise_comparisons=40,
        min_resampling_net_size=5,
    )

    assert plan_ahead(net, None).wave_size == 10

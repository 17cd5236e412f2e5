"""The events of a batch's life: in order, told once, and never at odds with one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cj_pipeline.emulator import change_settings, in_process_client
from cj_pipeline.emulator.config import EmulatorConfig
from cj_pipeline.errors import BatchProblemsError
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.progress.events import events_since, progress_of, record_progress
from cj_pipeline.progress.values import EventKind, Progress, ProgressEvent
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.advance import take_next_step
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.steps.watchdog import end_stalled
from cj_pipeline.stopping.continuation import BatchOutcome
from tests.support.batches import ManualClock, open_engine, write_batch

NO_STABILITY = {
    "judges": ["quality"],
    "score_stability_threshold": None,
    "max_pairwise_comparisons": 3,
    "wave_size": 3,
}

ALL_AT_ONCE = {"all_at_once": True, "wave_size": None, "max_pairwise_comparisons": 10}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A runtime over an empty home."""
    return open_engine(tmp_path / "home")


def emulate(runtime: Runtime, **settings: object) -> None:
    """Change the embedded emulator's settings."""
    change_settings(EmulatorConfig.from_environment(runtime.environment, runtime.home), **settings)


def pass_time(runtime: Runtime, clock: ManualClock, seconds: float) -> None:
    """Let time pass here and at the emulator."""
    clock.sleep(seconds)
    config = EmulatorConfig.from_environment(runtime.environment, runtime.home)
    answer = in_process_client(config).post(
        "http://emulator.invalid/emulator/clock", json={"seconds": seconds}
    )
    answer.raise_for_status()


def end(runtime: Runtime, batch_id: str) -> None:
    """Take a batch to its end; its report, which takes longest, is not written."""
    while True:
        with runtime.store.read() as db:
            if load_batch(db, batch_id).has_ended:
                return
        if take_next_step(runtime, batch_id).waited:
            end_stalled(runtime, batch_id)


def run(runtime: Runtime, folder: Path) -> str:
    """Take a batch folder to its end and return the batch's name."""
    batch_id = ingest(runtime, folder).batch_id
    end(runtime, batch_id)
    return batch_id


def events_of(runtime: Runtime, batch_id: str) -> list[ProgressEvent]:
    """Return everything told of a batch."""
    with runtime.store.read() as db:
        return events_since(db, batch_id)


def kinds(events: list[ProgressEvent]) -> list[EventKind]:
    """Return what each event tells."""
    return [event.kind for event in events]


def assert_sound(events: list[ProgressEvent]) -> None:
    """Check what holds for every batch's events, whatever happened to it."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events).count(EventKind.ENDED) <= 1
    assert EventKind.ENDED not in kinds(events[:-1])
    for event in events:
        assert (event.kind is EventKind.ENDED) == (event.progress.outcome is not None)
    for rising in ("checkpoint", "at"):
        values = [getattr(event, rising) for event in events]
        assert values == sorted(values)
    shares = [event.progress.share_done for event in events]
    assert shares == sorted(shares)


@pytest.mark.parametrize("mode", ["provider_batch_api", "per_request", "serial_bundle"])
def test_a_batch_is_told_from_its_opening_to_its_end(
    runtime: Runtime, tmp_path: Path, mode: str
) -> None:
    """However its judges are asked."""
    settings = NO_STABILITY | {"llm_batching_mode": mode, "max_pairwise_comparisons": 9}
    folder = write_batch(tmp_path / "batch", n_students=6, settings=settings)

    batch_id = run(runtime, folder)

    events = events_of(runtime, batch_id)
    assert_sound(events)
    assert kinds(events)[:2] == [EventKind.OPENED, EventKind.ASKED]
    assert kinds(events).count(EventKind.ASKED) == 3
    assert kinds(events).count(EventKind.DECIDED) == 2
    last = events[-1].progress
    assert (last.outcome, last.n_succeeded, last.share_done) == (BatchOutcome.SUCCESS, 9, 1.0)


@pytest.mark.parametrize(
    ("n_students", "settings", "emulator", "expected"),
    [
        pytest.param(3, {}, {}, BatchOutcome.SUCCESS, id="success"),
        pytest.param(
            8,
            {"max_attempts": 1, "min_success_rate": 0.1, "max_pairwise_comparisons": 28}
            | ALL_AT_ONCE,
            {"judges": {"quality": {"invalid_rate": 0.3}}},
            BatchOutcome.PARTIAL,
            id="partial",
        ),
        pytest.param(
            5,
            {"max_answers_without_verdict": 1_000},
            {"judges": {"quality": {"invalid_rate": 1.0}}},
            BatchOutcome.FAILURE,
            id="failure",
        ),
        pytest.param(5, {"spend_cap_usd": 1e-6}, {}, BatchOutcome.EMPTY, id="empty"),
        pytest.param(
            5,
            {},
            {"faults": [{"kind": "expires", "share": 0.0}]},
            BatchOutcome.EXPIRED,
            id="expired",
        ),
        pytest.param(
            5, {"stall_after_s": 0.05}, {"latency_s": 3600}, BatchOutcome.STALLED, id="stalled"
        ),
    ],
)
def test_every_ending_is_told_once(
    runtime: Runtime,
    tmp_path: Path,
    n_students: int,
    settings: dict[str, Any],
    emulator: dict[str, Any],
    expected: BatchOutcome,
) -> None:
    """With its outcome, and with nothing after it."""
    emulate(runtime, **emulator)
    folder = write_batch(
        tmp_path / "batch",
        n_students=n_students,
        settings=NO_STABILITY | {"anyway": True} | settings,
    )

    batch_id = run(runtime, folder)

    events = events_of(runtime, batch_id)
    assert_sound(events)
    assert events[-1].progress.outcome is expected


def test_a_cancelled_batch_says_so_twice(runtime: Runtime, tmp_path: Path) -> None:
    """First that it is being ended, then that it has ended."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=NO_STABILITY)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)

    cancel(runtime, batch_id)
    end(runtime, batch_id)

    events = events_of(runtime, batch_id)
    assert_sound(events)
    assert EventKind.CANCELLING in kinds(events)
    assert events[-1].progress.outcome is BatchOutcome.CANCELLED
    assert events[-1].progress.share_done < 1


def test_noting_again_tells_nothing_new(runtime: Runtime, tmp_path: Path) -> None:
    """Steps are repeated after a kill, and several processes may note the same landing."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=NO_STABILITY)
    batch_id = run(runtime, folder)
    before = events_of(runtime, batch_id)

    with runtime.store.write() as db:
        told = record_progress(db, batch_id, runtime.clock())

    assert told == ()
    assert events_of(runtime, batch_id) == before


def test_an_event_that_was_never_told_is_told_late(runtime: Runtime, tmp_path: Path) -> None:
    """Its rows owe it, whichever process comes by next."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=NO_STABILITY)
    batch_id = run(runtime, folder)
    with runtime.store.write() as db:
        db.execute("DELETE FROM progress_events WHERE kind = 'ended'")

        (told,) = record_progress(db, batch_id, runtime.clock())

    assert (told.kind, told.progress.outcome) == (EventKind.ENDED, BatchOutcome.SUCCESS)
    assert_sound(events_of(runtime, batch_id))


def test_what_a_provider_counts_is_progress(tmp_path: Path) -> None:
    """A job of hours is not at nought until its last minute."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    emulate(runtime, latency_s=1000.0)
    settings = NO_STABILITY | ALL_AT_ONCE
    batch_id = ingest(
        runtime, write_batch(tmp_path / "batch", n_students=5, settings=settings)
    ).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    pass_time(runtime, clock, 600)

    poll(runtime)

    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, clock())
    assert 0 < progress.n_done < 10
    assert progress.n_succeeded == 0
    assert progress.n_in_flight == 10 - progress.n_done
    assert kinds(events_of(runtime, batch_id))[-1] is EventKind.CHECKPOINT


def test_a_checkpoint_is_told_when_it_is_passed(runtime: Runtime, tmp_path: Path) -> None:
    """Not at every landing, and by the size that the caller's profile gives."""
    settings = NO_STABILITY | ALL_AT_ONCE
    batch_id = ingest(
        runtime, write_batch(tmp_path / "batch", n_students=5, settings=settings)
    ).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    poll(runtime)
    with runtime.store.write() as db:
        db.execute("DELETE FROM progress_events WHERE kind = 'checkpoint'")

        (told,) = record_progress(db, batch_id, runtime.clock(), checkpoint_every=4)

    assert (told.kind, told.checkpoint, told.progress.n_done) == (EventKind.CHECKPOINT, 8, 10)


def test_every_step_counts_checkpoints_as_the_profile_has_them(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Whether a call landed, a wave was settled or a decision was made."""
    settings = (
        NO_STABILITY
        | ALL_AT_ONCE
        | {
            "llm_batching_mode": "per_request",
            "profile_set": {"checkpoint_every": 4},
        }
    )
    folder = write_batch(tmp_path / "batch", n_students=5, settings=settings)

    events = events_of(runtime, run(runtime, folder))

    assert_sound(events)
    assert {event.checkpoint for event in events if event.kind is EventKind.CHECKPOINT} <= {4, 8}
    assert events[-1].checkpoint == 8


def test_a_batch_too_small_for_checkpoints_tells_the_time_left_from_its_answers(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Six answers say more than that six came since the start."""
    settings = NO_STABILITY | ALL_AT_ONCE | {"llm_batching_mode": "serial_bundle"}
    folder = write_batch(tmp_path / "batch", n_students=5, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    with runtime.store.write() as db:
        # As if they were not home yet.
        db.execute("DELETE FROM callbacks WHERE line > 6")
        db.execute("DELETE FROM live_calls WHERE line > 6")

        progress = progress_of(db, batch_id, runtime.clock())

    assert EventKind.CHECKPOINT not in kinds(events_of(runtime, batch_id))
    assert (progress.n_done, progress.n_asked) == (6, 10)
    assert progress.eta is not None
    # One gap for all of them would leave forty times as long possible.
    assert progress.eta.high_seconds < 10 * (4 / (progress.comparisons_per_s or 0))


def test_a_wave_that_is_home_says_little_of_those_to_come(runtime: Runtime, tmp_path: Path) -> None:
    """Its answers know nothing of the pauses in which waves are chosen; one wave is one gap."""
    settings = NO_STABILITY | {
        "llm_batching_mode": "serial_bundle",
        "max_pairwise_comparisons": 12,
        "wave_size": 4,
    }
    folder = write_batch(tmp_path / "batch", n_students=6, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)

    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, runtime.clock())

    assert (progress.n_done, progress.n_asked) == (4, 4)
    assert progress.eta is not None
    assert progress.eta.high_seconds > 20 * (8 / (progress.comparisons_per_s or 0))


def test_each_judge_has_its_own_figures(runtime: Runtime, tmp_path: Path) -> None:
    """They add up to the batch's."""
    settings = NO_STABILITY | {
        "judges": ["quality", "quality-messages"],
        "max_pairwise_comparisons": 6,
    }
    folder = write_batch(tmp_path / "batch", n_students=3, settings=settings)

    batch_id = run(runtime, folder)

    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, runtime.clock())
        billed = db.one("SELECT sum(usd) AS usd FROM ledger WHERE kind = 'billed'")
    assert [target.name for target in progress.targets] == ["quality", "quality-messages"]
    assert [target.n_succeeded for target in progress.targets] == [3, 3]
    assert {target.status for target in progress.targets} == {"done"}
    assert all(target.tokens > 0 for target in progress.targets)
    assert billed is not None
    assert sum(target.cost_usd for target in progress.targets) == pytest.approx(billed["usd"])
    assert progress.reserved_usd == pytest.approx(0, abs=1e-9)


def test_cost_is_projected_from_the_mean_so_far(runtime: Runtime, tmp_path: Path) -> None:
    """And is unknown before anything was billed."""
    settings = NO_STABILITY | {"max_pairwise_comparisons": 9}
    folder = write_batch(tmp_path / "batch", n_students=6, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    with runtime.store.read() as db:
        before = progress_of(db, batch_id, runtime.clock())
    while not poll(runtime, batch_id=batch_id).batches_with_ended_jobs:
        pass
    collect_wave(runtime, batch_id)

    with runtime.store.read() as db:
        after = progress_of(db, batch_id, runtime.clock())

    assert before.projected_usd is None
    assert before.reserved_usd > 0
    assert after.n_succeeded == 3
    assert after.projected_usd == pytest.approx(3 * after.cost_usd)


def test_a_rejected_batch_has_no_events(runtime: Runtime, tmp_path: Path) -> None:
    """It was never taken in; once mended, its story begins."""
    folder = write_batch(tmp_path / "batch", n_students=1, settings=NO_STABILITY)
    with pytest.raises(BatchProblemsError):
        ingest(runtime, folder)

    assert events_of(runtime, "batch") == []


def test_what_comes_home_after_the_end_changes_no_outcome(tmp_path: Path) -> None:
    """A batch that stalled has stalled, also once somebody has collected its late answers."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    emulate(runtime, latency_s=10_000.0)
    settings = NO_STABILITY | {"stall_after_s": 3600, "anyway": True}
    batch_id = ingest(
        runtime, write_batch(tmp_path / "batch", n_students=5, settings=settings)
    ).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    pass_time(runtime, clock, 4000)
    end_stalled(runtime, batch_id)

    pass_time(runtime, clock, 10_000)
    poll(runtime)
    collect_wave(runtime, batch_id)
    fit(runtime, batch_id)
    decide(runtime, batch_id)

    events = events_of(runtime, batch_id)
    assert_sound(events)
    with runtime.store.read() as db:
        assert progress_of(db, batch_id, clock()).outcome is BatchOutcome.STALLED


def test_progress_survives_being_written_down(runtime: Runtime, tmp_path: Path) -> None:
    """What a reader gets is what was noted."""
    folder = write_batch(tmp_path / "batch", n_students=3, settings=NO_STABILITY)
    batch_id = run(runtime, folder)
    with runtime.store.read() as db:
        progress = progress_of(db, batch_id, runtime.clock())

    assert Progress.from_json(progress.as_json()) == progress

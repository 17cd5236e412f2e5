"""What was put off by a clock that has been set back since is due at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cj_pipeline.provider_jobs.clock_jumps import is_parked
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from tests.support.batches import ManualClock, open_engine, write_batch


def test_a_job_put_off_by_a_clock_a_month_ahead_goes_on_once_the_clock_is_right(
    tmp_path: Path,
) -> None:
    """Sent, polled and leased by the clock before; by the right one nothing waits a month."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    settings = {"judges": ["quality"], "max_pairwise_comparisons": 6}
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=settings)
    batch_id = ingest(runtime, folder).batch_id
    plan_wave(runtime, batch_id)
    submit_wave(runtime, batch_id)
    with runtime.store.write() as db:
        db.execute(
            "UPDATE provider_jobs SET next_poll_at = $then, lease_until = $then",
            {"then": clock() + timedelta(days=30)},
        )
        assert is_parked(db, clock())

    polled = poll(runtime)

    assert polled.batches_with_ended_jobs == {batch_id}
    with runtime.store.read() as db:
        assert not is_parked(db, clock())
        assert next_step(db, batch_id, clock()) is NextStep.COLLECT


def test_what_is_put_off_for_a_day_stays_put_off(tmp_path: Path) -> None:
    """A provider that asks to be left alone is."""
    clock = ManualClock()
    runtime = open_engine(tmp_path / "home", clock=clock)
    with runtime.store.write() as db:
        db.insert(
            "circuit_breakers",
            [
                {
                    "lane": "l",
                    "account": "a",
                    "provider": "openai",
                    "model": "m",
                    "state": "open",
                    "n_failures": 1,
                    "n_trips": 1,
                    "open_until": clock() + timedelta(hours=24),
                    "changed_at": clock(),
                }
            ],
        )

    with runtime.store.read() as db:
        assert not is_parked(db, clock())
        assert is_parked(db, clock() - timedelta(days=30))

"""Sensors ask for each run once, look only for a bounded time, and remember across restarts."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest

from assets.automation import sensors
from assets.automation.pools import MARK_TAG
from assets.automation.sensors import (
    Attempts,
    inbox_sensor,
    job_states_sensor,
    notification_sensor,
    provider_jobs_sensor,
    watchdog_sensor,
)
from assets.provider_job_states import provider_job_states
from cj_pipeline.definitions import defs
from cj_pipeline.errors import BatchProblemsError, StoreBusyError
from cj_pipeline.progress import follow
from cj_pipeline.queries import job_states
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.collect_wave import collect_wave
from cj_pipeline.steps.decide import decide
from cj_pipeline.steps.fit import fit
from cj_pipeline.steps.ingest import ingest
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.poll import poll
from cj_pipeline.steps.submit_wave import submit_wave
from cj_pipeline.store.file_lock import hold
from cj_pipeline.store.file_store import FileStore
from resources import runtime_resource
from resources.runtime_resource import RuntimeResource
from tests.support.batches import begin, run_to_end, write_batch
from tests.support.finished_batches import fill

SETTINGS = {"judges": ["cj-generic-batch"], "wave_size": 3, "max_pairwise_comparisons": 6}


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult:
    """Evaluate a sensor once, as the daemon would."""
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"engine": RuntimeResource()},
        definitions=defs,
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> list[tuple[str | None, str | None]]:
    """Return the job and partition of each run asked for."""
    return [(run.job_name, run.partition_key) for run in result.run_requests or []]


class TestTicks:
    """A tick that finds the store held is skipped and says by whom; one that ends is recorded."""

    @pytest.mark.parametrize(
        "sensor",
        [
            inbox_sensor,
            provider_jobs_sensor,
            watchdog_sensor,
            notification_sensor,
            job_states_sensor,
        ],
    )
    def test_a_store_that_is_held_is_told_and_costs_no_red_tick(
        self,
        sensor: dg.SensorDefinition,
        runtime: Runtime,
        instance: dg.DagsterInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Twenty seconds here, shortened; the daemon allows a tick sixty."""
        monkeypatch.setattr(runtime_resource, "TICK_WAIT_S", 0.1)
        (runtime.home / "installation.yaml").write_text("notify: [{command: [cat]}]")
        with runtime.store.read():
            pass

        with hold(runtime.home / "cj.duckdb", shared=False, timeout_s=5):
            result = tick(sensor, instance, cursor="3")

        assert f"PID {os.getpid()}" in str(result.skip_reason)
        assert result.cursor == "3"

    def test_a_tick_that_ends_is_stored(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """An alert tells when a sensor has been silent for long."""
        tick(watchdog_sensor, instance)

        with runtime.store.read() as db:
            rows = db.rows("SELECT sensor, ticked_at FROM sensor_ticks")
        assert [row["sensor"] for row in rows] == ["watchdog_sensor"]


class TestJobStates:
    """Each change of a provider job's state is observed once, and a look alone never is."""

    def states(self, result: dg.SensorResult) -> list[tuple[str | None, object]]:
        """Return batch and state of each observation."""
        return [
            (event.partition, event.metadata["state"].value)
            for event in result.asset_events
            if isinstance(event, dg.AssetObservation)
        ]

    def test_a_change_is_observed_once(
        self, runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        """Also the last one, after which a job is no longer among those that go on."""
        name = begin(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS))
        first = tick(job_states_sensor, instance)
        idle = tick(job_states_sensor, instance, first.cursor)
        poll(runtime)
        ended = tick(job_states_sensor, instance, idle.cursor)
        collect_wave(runtime, name)
        settled = tick(job_states_sensor, instance, ended.cursor)
        after = tick(job_states_sensor, instance, settled.cursor)

        ticks = (first, idle, ended, settled, after)
        assert [self.states(each) for each in ticks] == [
            [(name, "submitted")],
            [],
            [(name, "ended")],
            [(name, "settled")],
            [],
        ]
        assert settled.asset_events[0].asset_key == provider_job_states.key
        assert settled.asset_events[0].metadata["n_requests"].value == 3

    def test_a_job_that_came_and_went_between_two_ticks_is_observed(
        self, runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        """Single calls are over when their run is."""
        begin(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS))
        first = tick(job_states_sensor, instance)
        calls = SETTINGS | {"llm_batching_mode": "per_request"}
        run_to_end(runtime, write_batch(tmp_path / "autumn-9", n_students=4, settings=calls))

        second = tick(job_states_sensor, instance, first.cursor)

        assert ("autumn-9", "settled") in self.states(second)

    def test_a_long_history_is_not_observed_when_nothing_is_known(
        self, runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        """A lost cursor, or another's, costs one observation of each job that is not done."""
        run_to_end(runtime, write_batch(tmp_path / "done", n_students=4, settings=SETTINGS))
        begin(runtime, write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS))

        for cursor in (None, "3", "[]", '{"since": 4, "states": {}}', '{"since": null}'):
            observed = tick(job_states_sensor, instance, cursor)
            assert self.states(observed) == [("spring-9", "submitted")]

    def test_more_changes_than_a_tick_takes_come_in_the_next(
        self,
        runtime: Runtime,
        instance: dg.DagsterInstance,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each once, whatever ended in between."""
        monkeypatch.setattr(job_states, "MOST_AT_ONCE", 2)
        cursor = tick(job_states_sensor, instance).cursor
        for number in range(5):
            folder = write_batch(tmp_path / f"b-{number}", n_students=4, settings=SETTINGS)
            (run_to_end if number % 2 else begin)(runtime, folder)
        found = []
        for _ in range(6):
            result = tick(job_states_sensor, instance, cursor)
            found.append(self.states(result))
            cursor = result.cursor

        assert max(map(len, found)) == 2
        assert found[-1] == []
        assert sorted(name for each in found for name, _ in each) == sorted(
            ["b-0", "b-1", "b-1", "b-2", "b-3", "b-3", "b-4"]
        )


class TestNotifications:
    """Somebody is told, and a sensor with a broken setting says so in its tick."""

    def test_what_is_due_is_told_and_no_run_is_requested(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """The command is a stand-in for whatever the operator has."""
        said = runtime.home / "said"
        (runtime.home / "installation.yaml").write_text(f"notify: [{{command: [tee, '{said}']}}]")

        told = [self._tick(instance)]
        with runtime.store.write() as db:
            fill(db)
            db.execute("UPDATE batches SET state = 'rejected', updated_at = now() + INTERVAL 1 DAY")
        told.append(self._tick(instance))

        assert told[0] == "0 notifications are new, 0 were sent, 0 failed"
        assert "3 were sent" in told[1]
        assert json.loads(said.read_text())["kind"] == "rejected"

    def test_a_broken_setting_is_named(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """Nothing else of the daemon stops for it."""
        (runtime.home / "installation.yaml").write_text("notify: [{webhook: nowhere}]")

        assert "notify[0]" in self._tick(instance)

    @staticmethod
    def _tick(instance: dg.DagsterInstance) -> str:
        result = tick(notification_sensor, instance)
        assert not result.run_requests
        assert isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message)


def _is_busy(_: FileStore) -> NoReturn:
    msg = "The store is busy."
    raise StoreBusyError(msg)


class TestInbox:
    """Folders dropped into CJ_HOME/inbox."""

    @staticmethod
    def drop(runtime: Runtime, name: str = "spring-9") -> Path:
        """Write a batch folder into the inbox."""
        return write_batch(runtime.inbox / name, n_students=4, settings=SETTINGS)

    def test_a_folder_is_taken_in_once_it_is_at_rest(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """Half a copied folder would be another batch."""
        folder = self.drop(runtime)

        first = tick(inbox_sensor, instance)
        second = tick(inbox_sensor, instance, first.cursor)

        assert asked(first) == []
        assert asked(second) == [("open_batch", "spring-9")]
        (run,) = second.run_requests or []
        assert run.run_config == {"ops": {"essays": {"config": {"folder": str(folder)}}}}
        (partitions,) = second.dynamic_partitions_requests or []
        assert partitions.partition_keys == ["spring-9"]

    def test_a_folder_still_changing_is_left_alone(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """A slow copy changes between two ticks."""
        folder = self.drop(runtime)
        first = tick(inbox_sensor, instance)
        (folder / "essays" / "late.txt").write_text("One more essay.")

        second = tick(inbox_sensor, instance, first.cursor)

        assert asked(second) == []

    def test_a_folder_is_asked_for_once(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """However long it stays in the inbox."""
        self.drop(runtime)
        cursor = tick(inbox_sensor, instance).cursor
        cursor = tick(inbox_sensor, instance, cursor).cursor

        assert asked(tick(inbox_sensor, instance, cursor)) == []

    def test_a_lost_cursor_asks_for_nothing_twice(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """What is known of each folder is in the store, not in the cursor."""
        self.drop(runtime)
        tick(inbox_sensor, instance)

        assert len(asked(tick(inbox_sensor, instance))) == 1
        assert asked(tick(inbox_sensor, instance)) == []

    def test_a_changed_folder_is_asked_for_again(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """A rejected batch that was mended gets its second chance, under another run key."""
        folder = self.drop(runtime)
        cursor = tick(inbox_sensor, instance).cursor
        before = tick(inbox_sensor, instance, cursor)
        (folder / "batch.yaml").write_text("judges: [quality]\n")

        changed = tick(inbox_sensor, instance, before.cursor)
        after = tick(inbox_sensor, instance, changed.cursor)

        assert asked(changed) == []
        assert asked(after) == [("open_batch", "spring-9")]
        assert (after.run_requests or [])[0].run_key != (before.run_requests or [])[0].run_key

    def test_a_rejected_folder_says_why_and_is_opened_once_mended(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """Mending the folder is all there is to do."""
        folder = self.drop(runtime)
        settings = (folder / "batch.yaml").read_text()
        (folder / "batch.yaml").write_text("colour: red\n")
        tick(inbox_sensor, instance)
        tick(inbox_sensor, instance)
        with pytest.raises(BatchProblemsError):
            ingest(runtime, folder)

        held = tick(inbox_sensor, instance)
        (folder / "batch.yaml").write_text(settings)
        tick(inbox_sensor, instance)

        assert asked(held) == []
        assert "spring-9 is rejected: batch.yaml: unknown key" in str(held.skip_reason)
        assert asked(tick(inbox_sensor, instance)) == [("open_batch", "spring-9")]

    def test_an_opened_folder_leaves_the_inbox(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """So that a tick costs what is new; the batch knows where its folder went."""
        folder = self.drop(runtime)
        tick(inbox_sensor, instance)
        tick(inbox_sensor, instance)
        ingest(runtime, folder)

        assert asked(tick(inbox_sensor, instance)) == []
        assert not folder.exists()
        moved = runtime.ingested / "spring-9"
        assert (moved / "batch.yaml").is_file()
        with runtime.store.read() as db:
            assert db.rows("SELECT source_path FROM batches") == [{"source_path": str(moved)}]
        assert asked(tick(inbox_sensor, instance)) == []

    def test_opened_folders_stay_where_the_installation_says_so(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """And one that is changed then says that its batch is as it was."""
        (runtime.home / "installation.yaml").write_text("keep_in_inbox: true\n")
        folder = self.drop(runtime)
        tick(inbox_sensor, instance)
        tick(inbox_sensor, instance)
        ingest(runtime, folder)
        tick(inbox_sensor, instance)
        (folder / "essays" / "late.txt").write_text("One more.")

        changed = tick(inbox_sensor, instance)

        assert folder.is_dir()
        assert "changed after it was opened" in str(changed.skip_reason)

    def test_a_zip_file_is_unpacked_and_opened(
        self, runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        """As a teacher is sent it; a broken one says so and holds nothing up."""
        folder = write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS)
        runtime.inbox.mkdir(parents=True)
        shutil.make_archive(str(runtime.inbox / "spring-9"), "zip", folder)
        (runtime.inbox / "broken.zip").write_bytes(b"PK no more")
        requested = [asked(tick(inbox_sensor, instance)) for _ in range(5)]

        assert [one for some in requested for one in some] == [("open_batch", "spring-9")]
        assert (runtime.ingested / "spring-9.zip").is_file()
        with runtime.store.read() as db:
            found = db.rows("SELECT name, state FROM arrivals ORDER BY name")
        assert [(row["name"], row["state"]) for row in found] == [
            ("broken.zip", "rejected"),
            ("spring-9", "waiting"),
            ("spring-9.zip", "opened"),
        ]

    def test_a_store_that_is_held_loses_nothing(
        self, runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tick that cannot read the store asks for nothing; a run that could not is repeated."""
        folder = self.drop(runtime)
        tick(inbox_sensor, instance)
        with monkeypatch.context() as held:
            held.setattr(FileStore, "read", _is_busy)
            assert "not looked at" in str(tick(inbox_sensor, instance).skip_reason)

        first = tick(inbox_sensor, instance)
        with monkeypatch.context() as held:
            held.setattr(FileStore, "write", _is_busy)
            with pytest.raises(StoreBusyError):
                ingest(runtime, folder)
        with runtime.store.write() as db:  # eleven minutes pass
            db.execute("UPDATE arrivals SET next_try_at = next_try_at - INTERVAL 11 MINUTE")
        second = tick(inbox_sensor, instance)

        assert [asked(first), asked(second)] == [[("open_batch", "spring-9")]] * 2
        assert (first.run_requests or [])[0].run_key != (second.run_requests or [])[0].run_key

    @pytest.mark.parametrize(
        ("setting", "named"),
        [
            ({"link_to": ["autumn-8"]}, "autumn-8"),
            ({"judges": ["openai-gpt-4-1-mini"]}, "OPENAI_API_KEY"),
        ],
        ids=["a link to a batch that comes later", "a key"],
    )
    def test_what_is_no_fault_of_the_folder_is_waited_for(
        self,
        runtime: Runtime,
        instance: dg.DagsterInstance,
        tmp_path: Path,
        setting: dict[str, list[str]],
        named: str,
    ) -> None:
        """So it is not rejected for good."""
        settings = SETTINGS | setting
        folder = write_batch(runtime.inbox / "spring-9", n_students=4, settings=settings)
        (runtime.home / "installation.yaml").write_text("inbox_rest_s: 0\n")
        tick(inbox_sensor, instance)
        tick(inbox_sensor, instance)
        with pytest.raises(BatchProblemsError):
            ingest(runtime, folder)

        with runtime.store.read() as db:
            (row,) = db.rows("SELECT state, reason, next_try_at FROM arrivals")
        assert row["state"] == "waiting"
        assert named in row["reason"]
        assert row["next_try_at"] > runtime.clock()

    def test_what_is_no_batch_folder_is_ignored(
        self, runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
    ) -> None:
        """Files, folders being written under a dotted name, and links out of the inbox."""
        elsewhere = write_batch(tmp_path / "elsewhere", n_students=4, settings=SETTINGS)
        runtime.inbox.mkdir(parents=True)
        (runtime.inbox / "notes.txt").write_text("Not a batch.")
        (runtime.inbox / ".spring-9").mkdir()
        (runtime.inbox / "linked").symlink_to(elsewhere)

        cursor = tick(inbox_sensor, instance).cursor

        assert asked(tick(inbox_sensor, instance, cursor)) == []

    def test_a_folders_name_becomes_a_partition_every_system_takes(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """People name folders as they like."""
        self.drop(runtime, "Vår 9:an")
        cursor = tick(inbox_sensor, instance).cursor

        assert asked(tick(inbox_sensor, instance, cursor)) == [("open_batch", "var-9-an")]

    def test_a_pipe_in_a_folder_does_not_block_a_tick(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """A sensor that hangs holds up every batch."""
        folder = self.drop(runtime)
        os.mkfifo(folder / "essays" / "pipe.txt")

        cursor = tick(inbox_sensor, instance).cursor

        assert len(asked(tick(inbox_sensor, instance, cursor))) == 1


class TestProviderJobs:
    """What each batch needs next."""

    @pytest.fixture
    def batch_id(self, runtime: Runtime, tmp_path: Path) -> str:
        """A batch whose first wave was sent; its provider jobs have ended by now."""
        folder = write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS)
        name = ingest(runtime, folder).batch_id
        plan_wave(runtime, name)
        submit_wave(runtime, name)
        return name

    def test_an_ended_job_asks_for_a_collection_run(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """The tick polls, sees the end, and asks in the same breath."""
        result = tick(provider_jobs_sensor, instance)

        assert asked(result) == [("collect_wave", batch_id)]
        (run,) = result.run_requests or []
        assert run.tags["dagster/cj-provider-emulator"] == "yes"
        assert run.tags["dagster/priority"] == "2"

    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What a tick reads of the store, in order; it watches for a second and a half."""
        made: list[str] = []

        def told(name: str) -> None:
            function = getattr(sensors, name)

            def read(*args: object, **more: object) -> object:
                made.append(name)
                return function(*args, **more)

            monkeypatch.setattr(sensors, name, read)

        told("poll")
        told("standings")
        monkeypatch.setattr(sensors, "WATCH_FOR_S", 1.5)
        return made

    @pytest.fixture
    def running(self, runtime: Runtime, batch_id: str) -> str:
        """The same batch while its provider works, for another hour."""
        with runtime.store.write() as db:
            db.execute("UPDATE provider_jobs SET next_poll_at = now() + INTERVAL 1 HOUR")
        return batch_id

    @pytest.mark.usefixtures("running")
    def test_a_tick_with_nothing_due_reads_once(
        self, instance: dg.DagsterInstance, reads: list[str]
    ) -> None:
        """Batches that wait for hours cost next to nothing, and keep no writer waiting."""
        assert asked(tick(provider_jobs_sensor, instance)) == []

        assert reads == ["poll", "standings"]

    def test_a_job_that_becomes_due_is_polled_within_the_tick(
        self,
        runtime: Runtime,
        batch_id: str,
        instance: dg.DagsterInstance,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """That nothing changed here does not say that nothing changed at the provider."""
        monkeypatch.setattr(sensors, "WATCH_FOR_S", 20.0)
        monkeypatch.setattr(follow, "READ_AT_LATEST_S", 1000.0)
        with runtime.store.write() as db:
            db.execute("UPDATE provider_jobs SET next_poll_at = now() + INTERVAL '1 second'")

        assert asked(tick(provider_jobs_sensor, instance)) == [("collect_wave", batch_id)]

    def test_what_another_process_writes_is_seen_within_the_tick(
        self, runtime: Runtime, running: str, instance: dg.DagsterInstance, reads: list[str]
    ) -> None:
        """A run that brings a batch on is followed by the next one at once."""

        def end() -> None:
            while not reads:
                time.sleep(0.01)
            with runtime.store.write() as db:
                db.execute("UPDATE provider_jobs SET state = 'ended', ended_at = now()")

        other = threading.Thread(target=end)
        other.start()
        result = tick(provider_jobs_sensor, instance)
        other.join()

        assert asked(result) == [("collect_wave", running)]

    def test_a_decided_wave_asks_for_the_next(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """The decision is in the rows; the sensor only reads it."""
        poll(runtime)
        for step in (collect_wave, fit, decide):
            step(runtime, batch_id)

        assert asked(tick(provider_jobs_sensor, instance)) == [("next_wave", batch_id)]

    def test_a_batch_made_without_dagster_gets_its_partition(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """`cj execute` may open a batch, and the sensors take it on."""
        (request,) = tick(provider_jobs_sensor, instance).dynamic_partitions_requests or []

        assert request.partition_keys == [batch_id]

    def test_a_batch_with_a_run_going_is_left_alone(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """One run per batch at a time."""
        job = defs.resolve_job_def("collect_wave")
        instance.add_dynamic_partitions("batches", [batch_id])
        instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": batch_id}
        )

        assert asked(tick(provider_jobs_sensor, instance)) == []

    def test_a_failed_run_is_tried_again_later_under_another_key(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """Not at once, or a batch with a fault would start a run every two seconds."""
        (first,) = tick(provider_jobs_sensor, instance).run_requests or []
        instance.create_run_for_job(
            defs.resolve_job_def("collect_wave"),
            status=dg.DagsterRunStatus.FAILURE,
            tags={MARK_TAG: first.tags[MARK_TAG]},
        )

        (second,) = tick(provider_jobs_sensor, instance).run_requests or []

        assert second.run_key != first.run_key
        assert second.tags[MARK_TAG] == first.tags[MARK_TAG]

    def test_a_step_that_always_fails_is_left_to_a_person(
        self, runtime: Runtime, batch_id: str, instance: dg.DagsterInstance
    ) -> None:
        """After six failures on one occasion, asking again only fills the list of runs."""
        (first,) = tick(provider_jobs_sensor, instance).run_requests or []
        for _ in range(6):
            instance.create_run_for_job(
                defs.resolve_job_def("collect_wave"),
                status=dg.DagsterRunStatus.FAILURE,
                tags={MARK_TAG: first.tags[MARK_TAG]},
            )

        assert asked(tick(provider_jobs_sensor, instance)) == []

    def test_nothing_to_do_asks_for_nothing(
        self, runtime: Runtime, instance: dg.DagsterInstance
    ) -> None:
        """An empty store is the usual state at night."""
        assert asked(tick(provider_jobs_sensor, instance)) == []


@pytest.mark.parametrize(("n", "pause_s"), [(1, 15), (2, 60), (3, 240), (6, 3600), (60, 3600)])
def test_each_further_try_waits_four_times_as_long_up_to_an_hour(n: int, pause_s: int) -> None:
    """A provider that is down for a day is asked two dozen times, not forty thousand."""
    ended = datetime(2026, 1, 5, 8, tzinfo=UTC)
    tries = Attempts(n=n, last_ended=ended)

    assert tries.are_too_fresh(ended + timedelta(seconds=pause_s - 1))
    assert not tries.are_too_fresh(ended + timedelta(seconds=pause_s + 1))
    assert not tries.are_too_fresh(ended - timedelta(days=30)), "the clock was set back"


def test_the_watchdog_asks_for_the_end_of_a_stalled_batch(
    runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Its run key names the silence, so one silence is one run."""
    folder = write_batch(
        tmp_path / "spring-9", n_students=4, settings=SETTINGS | {"stall_after_s": 0.001}
    )
    name = ingest(runtime, folder).batch_id
    plan_wave(runtime, name)
    submit_wave(runtime, name)

    first, second = tick(watchdog_sensor, instance), tick(watchdog_sensor, instance)

    assert asked(first) == [("finish_batch", name)]
    (run,) = first.run_requests or []
    assert run.run_config == {"ops": {"wave_decision": {"config": {"end_if_stalled": True}}}}
    assert [r.run_key for r in second.run_requests or []] == [run.run_key]

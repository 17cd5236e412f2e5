"""What a person or a sensor can do with a batch: jobs, their configs, their place in the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)

from assets.automation.in_process import QUIET, run_batch
from assets.automation.sensors import inbox_sensor
from cj_pipeline.definitions import defs
from cj_pipeline.runtime import Runtime
from resources.local_instance import local_instance
from resources.runtime_resource import RuntimeResource
from tests.support.batches import write_batch

SETTINGS = {
    "judges": ["quality"],
    "scale": "eng5_np_national_9_step",
    "all_at_once": True,
    "max_pairwise_comparisons": 40,
    "score_stability_threshold": None,
}
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("cj_pipeline"), "__repository__"),
    "collect_wave",
)
OTHER_SCALE = "eng5_np_legacy_9_step"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dg.DagsterInstance, Runtime]]:
    """A graded batch that has ended, for everything that can be done with it afterwards."""
    folder = write_batch(
        tmp_path_factory.mktemp("ended") / "spring-9", n_students=4, n_anchors=6, settings=SETTINGS
    )
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("CJ_HOME", str(folder.parent / "home"))
        patch.delenv("CJ_EMULATOR_URL", raising=False)
        runtime = RuntimeResource().open()
        list(run_batch(instance, defs, runtime, "spring-9", folder, pause_s=0.05))
        yield instance, runtime


def run(
    instance: dg.DagsterInstance, job: str, config: Mapping[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """Run a job for the batch, as the launchpad does."""
    definition = defs.resolve_job_def(job)
    return definition.execute_in_process(
        run_config={**QUIET, **config} if config is not None else None,
        instance=instance,
        partition_key="spring-9",
        raise_on_error=False,
    )


def rows(runtime: Runtime, sql: str) -> list[dict[str, Any]]:
    """Return rows of the store."""
    with runtime.store.read() as db:
        return db.rows(sql)


ASKED = "SELECT custom_id, cost_usd FROM attempts ORDER BY custom_id"


class TestAnEndedBatch:
    """What is done with a batch that is over never asks a judge again."""

    def test_regrading_needs_no_config_and_buys_nothing(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """A partition and one click: a further revision."""
        instance, runtime = ended
        asked = rows(runtime, ASKED)
        before = len(rows(runtime, "SELECT * FROM grading_reports"))

        result = run(instance, "regrade_batch")

        assert result.success
        assert rows(runtime, ASKED) == asked
        assert len(rows(runtime, "SELECT * FROM grading_reports")) == before + 1

    def test_rescoring_fits_all_verdicts_again_and_buys_nothing(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """Scores that were lost or spoilt come back as they were."""
        instance, runtime = ended
        asked, scored = rows(runtime, ASKED), rows(runtime, "FROM essay_scores ORDER BY essay_id")
        with runtime.store.write() as db:
            db.execute("UPDATE essay_scores SET score = 0")

        result = run(instance, "rescore_batch")

        assert result.success
        assert rows(runtime, "FROM essay_scores ORDER BY essay_id") == scored
        assert rows(runtime, ASKED) == asked

    def test_running_a_wave_again_buys_nothing(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """A person who is not sure may click."""
        instance, runtime = ended
        asked = rows(runtime, ASKED)

        results = [run(instance, job) for job in ("next_wave", "collect_wave", "finish_batch")]

        assert all(result.success for result in results)
        assert rows(runtime, ASKED) == asked

    def test_an_anchor_that_is_none_is_told_in_the_run(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """With what is wrong, and nothing changed."""
        instance, _ = ended
        config = {"again": True, "anchor_grades": {"student-001": "9"}}

        result = run(instance, "regrade_batch", {"ops": {"grade_projections": {"config": config}}})

        assert not result.success
        told = result.failure_data_for_node("grade_projections")
        assert told is not None
        assert "student-001" in str(told.error)

    def test_thresholds_and_links_are_changed_from_the_launchpad(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """As `cj regrade --set` does; what cannot be is told in the run."""
        instance, runtime = ended

        def regraded(**config: object) -> dg.ExecuteInProcessResult:
            given = {"again": True, **config}
            return run(instance, "regrade_batch", {"ops": {"grade_projections": {"config": given}}})

        right = regraded(min_anchor_grades=3, max_extrapolated_share=0.9)
        wrong = regraded(link_to=["autumn-8"])

        assert right.success
        kept = rows(runtime, "SELECT terms FROM grading_reports ORDER BY revision DESC LIMIT 1")
        assert (kept[0]["terms"]["min_grades"], kept[0]["terms"]["max_extrapolated_share"]) == (
            3,
            0.9,
        )
        told = wrong.failure_data_for_node("grade_projections")
        assert told is not None
        assert "autumn-8" in str(told.error)

    def test_what_would_be_dropped_in_silence_is_refused(
        self, ended: tuple[dg.DagsterInstance, Runtime]
    ) -> None:
        """Another scale without `again` would change nothing."""
        instance, _ = ended
        config = {"ops": {"grade_projections": {"config": {"scale": OTHER_SCALE}}}}

        result = run(instance, "finish_batch", config)

        assert not result.success
        told = result.failure_data_for_node("grade_projections")
        assert told is not None
        assert "again: true" in told.error.to_string()  # type: ignore[union-attr]


def test_a_key_nobody_knows_is_refused_before_a_run_begins(instance: dg.DagsterInstance) -> None:
    """The launchpad marks it, and shows what there is."""
    job = defs.resolve_job_def("regrade_batch")

    with pytest.raises(dg.DagsterInvalidConfigError, match="anchor_grades"):
        job.execute_in_process(
            run_config={"ops": {"grade_projections": {"config": {"agian": True}}}},
            instance=instance,
        )


def test_every_setting_of_a_run_says_what_it_does() -> None:
    """The launchpad shows it beside the key."""
    silent = []
    for job in ("open_batch", "finish_batch", "regrade_batch"):
        schema = defs.resolve_job_def(job).run_config_schema
        for op, field in schema.config_type.fields["ops"].config_type.fields.items():  # type: ignore[attr-defined]
            config = field.config_type.fields.get("config")
            known = getattr(config.config_type, "fields", {}) if config else {}
            silent += [f"{op}.{key}" for key, each in known.items() if not each.description]

    assert silent == []


def test_settings_given_by_hand_win_and_a_wrong_one_is_told(
    runtime: Runtime, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """From the launchpad, over `batch.yaml`."""
    folder = write_batch(tmp_path / "spring-9", n_students=4, settings=SETTINGS | {"scale": None})
    instance.add_dynamic_partitions("batches", ["spring-9"])

    def source(**settings: object) -> dict[str, Any]:
        config = {"folder": str(folder), "settings": settings}
        return {"ops": {"essays": {"config": config}}}

    wrong = run(instance, "open_batch", source(wave_sise=2))
    right = run(instance, "open_batch", source(max_pairwise_comparisons=3))

    failure = wrong.failure_data_for_node("essays")
    assert failure is not None
    assert "'wave_size'" in str(failure.error)
    assert right.success
    assert len(rows(runtime, "FROM attempts")) == 3


class TestTheQueue:
    """The instance that `dagster.yaml` describes, and what its daemon would start."""

    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
        """An instance as `cj ui` has it."""
        with local_instance(tmp_path) as instance:
            yield instance

    def queue(self, instance: dg.DagsterInstance, partition: str, **tags: str) -> str:
        """Put a run into the queue, and return its id."""
        run = instance.create_run_for_job(
            defs.resolve_job_def("collect_wave"),
            status=dg.DagsterRunStatus.QUEUED,
            remote_job_origin=ORIGIN,
            tags={"dagster/partition": partition}
            | {key.replace("__", "/").replace("_", "-"): value for key, value in tags.items()},
        )
        return run.run_id

    def started(self, instance: dg.DagsterInstance) -> list[str]:
        """Return the runs that the daemon would start now, in order."""
        daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
        chosen = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
        return [run.run_id for run in chosen]

    def test_one_provider_never_takes_every_place(self, served: dg.DagsterInstance) -> None:
        """Three of four: the fourth is the next provider's."""
        slow = [self.queue(served, f"b{i}", dagster__cj_provider_openai="yes") for i in range(4)]
        other = self.queue(served, "b9", dagster__cj_provider_anthropic="yes")

        started = self.started(served)

        assert set(started) == {*slow[:3], other}

    def test_a_panels_run_takes_from_every_providers_pool(self, served: dg.DagsterInstance) -> None:
        """Three panels fill both pools."""
        both = {"dagster__cj_provider_openai": "yes", "dagster__cj_provider_gemini": "yes"}
        panels = [self.queue(served, f"p{i}", **both) for i in range(3)]
        self.queue(served, "single", dagster__cj_provider_gemini="yes")

        assert set(self.started(served)) == set(panels)

    def test_a_batch_has_one_run_at_a_time(self, served: dg.DagsterInstance) -> None:
        """Whoever asks for the second."""
        first, _ = self.queue(served, "spring-9"), self.queue(served, "spring-9")

        assert self.started(served) == [first]

    def test_what_matters_more_goes_first(self, served: dg.DagsterInstance) -> None:
        """By the tag that Dagster's queue goes by."""
        low = self.queue(served, "b1", dagster__priority="-10")
        high = self.queue(served, "b2", dagster__priority="12")

        assert self.started(served) == [high, low]


def test_a_dropped_batch_is_queued_by_its_priority_and_provider(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """Read from its settings before its run begins; a folder that cannot be read is no matter."""
    runtime.home.mkdir(exist_ok=True)
    (runtime.home / "installation.yaml").write_text("inbox_rest_s: 0")
    write_batch(runtime.inbox / "urgent", n_students=3, settings=SETTINGS | {"priority": "high"})
    write_batch(runtime.inbox / "usual", n_students=3, settings={"judges": ["openai-gpt-5-1-low"]})
    broken = write_batch(runtime.inbox / "broken", n_students=3, settings={})
    (broken / "batch.yaml").write_text("judges: [")
    cursor = None
    for _ in range(2):
        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            resources={"engine": RuntimeResource()},
            definitions=defs,
        ) as context:
            result = inbox_sensor(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor

    tags = {run.partition_key: run.tags for run in result.run_requests or []}

    assert tags["urgent"]["dagster/priority"] == "10"
    assert tags["usual"]["dagster/priority"] == "0"
    assert tags["usual"]["dagster/cj-provider-openai"] == "yes"
    assert not any("cj-provider" in tag for tag in tags["broken"])

"""The Dagster instance that belongs to a home."""

from __future__ import annotations

from pathlib import Path

from dagster._core.run_coordinator import QueuedRunCoordinator

from assets.automation.pools import ProviderPools
from resources.local_instance import local_instance, prepare_dagster_home


def test_what_is_kept_in_it_is_there_next_time(tmp_path: Path) -> None:
    """The demo's runs are seen in the UI that is started afterwards."""
    with local_instance(tmp_path) as instance:
        instance.add_dynamic_partitions("batches", ["spring-9"])

    with local_instance(tmp_path) as instance:
        assert instance.get_dynamic_partitions("batches") == ["spring-9"]


def test_it_is_configured_as_shipped(tmp_path: Path) -> None:
    """Dagster takes `dagster.yaml` without complaint, limits and all."""
    with local_instance(tmp_path) as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4


def test_a_configuration_changed_by_hand_stays(tmp_path: Path) -> None:
    """Whoever moved it to PostgreSQL does not want that undone."""
    file = prepare_dagster_home(tmp_path) / "dagster.yaml"
    file.write_text("telemetry:\n  enabled: false\n")

    prepare_dagster_home(tmp_path)

    assert file.read_text() == "telemetry:\n  enabled: false\n"


def test_names_from_before_are_renewed_in_a_configuration_that_was_changed(tmp_path: Path) -> None:
    """Runs bear other tags now: pools by the old names would limit nothing."""
    file = prepare_dagster_home(tmp_path) / "dagster.yaml"
    file.write_text(
        "run_coordinator:\n  module: dagster.core.run_coordinator\n  class: QueuedRunCoordinator\n"
        "concurrency:\n  runs:\n    max_concurrent_runs: 9\n    tag_concurrency_limits:\n"
        "      - key: cj/provider-openai\n        limit: 7\n"
    )

    with local_instance(tmp_path) as instance:
        assert isinstance(instance.run_coordinator, ProviderPools)
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 9
        assert queue.tag_concurrency_limits == [{"key": "dagster/cj-provider-openai", "limit": 7}]

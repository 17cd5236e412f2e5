"""The harness: suites through Dagster's jobs, with the emulator asked over HTTP."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets.automation.in_process import TrialRun, run_trial
from cj_pipeline.definitions import defs
from cj_pipeline.runtime import Runtime
from cj_pipeline.trials.definitions import load_trial, trial_names

QUICKEST = ("mini", "provider-batch")
OTHERS = tuple(sorted(set(trial_names(Path("no-home"))) - set(QUICKEST)))


def run(instance: dg.DagsterInstance, home: Path, name: str) -> TrialRun:
    """Run a built-in trial."""
    return run_trial(instance, defs, home, load_trial(name, home))


def wrong(done: TrialRun) -> list[str]:
    """Return what did not come out, as a person would read it."""
    return [f"{f.expectation}, found {f.found}" for f in done.outcome.findings if not f.holds]


@pytest.mark.parametrize("name", QUICKEST)
def test_a_suite_comes_out_as_expected(
    name: str, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """The figures that older systems give, through the real jobs."""
    assert wrong(run(instance, runtime.home, name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_suite_comes_out_as_expected(
    name: str, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """Those that take more than two waves."""
    assert wrong(run(instance, runtime.home, name)) == []


def test_a_trials_page_shows_expectations_figures_and_runs(
    runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    """And its checks say whether it came out, and whether it has drifted."""
    (runtime.home / "trials").mkdir(parents=True)
    (runtime.home / "trials" / "tiny.yaml").write_text(
        "based_on: minimum\nexpect: [completed == 5, waves == 99]\nsettings: {all_at_once: true}\n"
    )
    first, second = (run(instance, runtime.home, "tiny") for _ in range(2))

    page = instance.get_latest_materialization_event(dg.AssetKey("trial_outcome"))

    assert page is not None
    assert page.asset_materialization is not None
    metadata = page.asset_materialization.metadata
    assert metadata["compared_with"].value == first.outcome.batch_id
    assert second.outcome.batch_id != first.outcome.batch_id
    assert isinstance(metadata["expectations"], dg.TableMetadataValue)
    assert [r.data["holds"] for r in metadata["expectations"].records] == [True, False]
    assert isinstance(metadata["runs"], dg.TableMetadataValue)
    assert len(metadata["runs"].records) == 2
    assert check_passed(instance, "trial_meets_expectations") is False
    assert check_passed(instance, "trial_has_not_drifted") is True


def check_passed(instance: dg.DagsterInstance, name: str) -> bool:
    """Return whether a check of `trial_outcome` passed when it was last evaluated."""
    key = dg.AssetCheckKey(dg.AssetKey("trial_outcome"), name)
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert found.event is not None
    assert found.event.dagster_event is not None
    return found.event.dagster_event.asset_check_evaluation_data.passed

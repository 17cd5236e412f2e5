"""The code location Dagster loads: assets, checks, jobs, sensors, schedules and their runtime."""

from __future__ import annotations

import dagster as dg

from assets import (
    batch_report,
    comparison_pairs,
    comparisons,
    essay_scores,
    essays,
    grade_projections,
    provider_jobs,
    run_artefact,
    trial_outcome,
    wave_decision,
)
from assets.automation.checks import ALL_CHECKS
from assets.automation.jobs import ALL_JOBS
from assets.automation.maintenance import nightly_upkeep, store_upkeep
from assets.automation.schedules import trial_schedules, trials_home
from assets.automation.sensors import ALL_SENSORS
from resources.runtime_resource import RuntimeResource

ASSETS = (
    essays,
    comparison_pairs,
    provider_jobs,
    comparisons,
    essay_scores,
    wave_decision,
    grade_projections,
    run_artefact,
    batch_report,
    trial_outcome,
)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(ASSETS),
    asset_checks=[*ALL_CHECKS, trial_outcome.trial_outcome_checks],
    jobs=[*ALL_JOBS, store_upkeep],
    sensors=ALL_SENSORS,
    schedules=[*trial_schedules(trials_home()), nightly_upkeep],
    resources={"engine": RuntimeResource()},
    # A step takes a tenth of a second; a process for each would take twenty times that.
    executor=dg.in_process_executor,
)

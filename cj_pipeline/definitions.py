"""The code location Dagster loads: assets, checks, jobs, sensors, schedules and their runtime."""

from __future__ import annotations

import warnings

import dagster as dg

import assets
from assets import trial_outcome
from assets.automation.checks import ALL_CHECKS
from assets.automation.jobs import ALL_JOBS
from assets.automation.maintenance import nightly_upkeep, store_upkeep
from assets.automation.schedules import trial_schedules, trials_home
from assets.automation.sensors import ALL_SENSORS
from resources.runtime_resource import RuntimeResource

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    located = dg.with_source_code_references(
        dg.load_assets_from_package_module(assets, include_specs=True)
    )
    """Every asset in the folder, with the place where it is written."""

defs = dg.Definitions(
    assets=located,
    asset_checks=[*ALL_CHECKS, trial_outcome.trial_outcome_checks],
    jobs=[*ALL_JOBS, store_upkeep],
    sensors=ALL_SENSORS,
    schedules=[*trial_schedules(trials_home()), nightly_upkeep],
    resources={"engine": RuntimeResource()},
    # A step takes a tenth of a second; a process for each would take twenty times that.
    executor=dg.in_process_executor,
)

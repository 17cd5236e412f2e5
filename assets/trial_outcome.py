"""What a run of a trial came to: expectations met or not, and drift since the run before."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.automation.metadata import table
from assets.automation.partitions import OWNERS, STORED, batches, errors_as_dagster_knows_them
from cj_pipeline.trials.runs import TrialOutcome, conclude_trial, stored_outcome, trial_history
from resources.runtime_resource import RuntimeResource

_SHOWN_RUNS = 20


@dg.asset(
    deps=["batch_report"],
    partitions_def=batches,
    group_name="trials",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "no"},
    output_required=False,
    # Nightly trials that do not come out are stale on its page; `CJTrialOverdue` tells alike.
    freshness_policy=dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=36), warn_window=timedelta(hours=26)
    ),
)
def trial_outcome(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> Iterator[dg.MaterializeResult[None]]:
    """What a trial came to and what was expected, and how far it is from the runs before it.

    Only batches that are trials have one.
    """
    connected, batch_id = engine.open(), context.partition_key
    with errors_as_dagster_knows_them():
        outcome = conclude_trial(connected, batch_id)
    if outcome is None:
        return
    with connected.store.read() as db:
        runs = trial_history(db, outcome.trial)[:_SHOWN_RUNS]
    yield dg.MaterializeResult(metadata=_metadata(outcome, runs))


@dg.multi_asset_check(
    name="trial_outcome_checks",
    specs=[
        dg.AssetCheckSpec(
            "trial_meets_expectations",
            asset="trial_outcome",
            description="Every figure that the trial's definition expects came out.",
            partitions_def=batches,
        ),
        dg.AssetCheckSpec(
            "trial_has_not_drifted",
            asset="trial_outcome",
            description="Scores, grades, cost, duration and agreement are near the runs before.",
            partitions_def=batches,
        ),
    ],
)
def trial_outcome_checks(
    context: dg.AssetCheckExecutionContext, engine: RuntimeResource
) -> Iterator[dg.AssetCheckResult]:
    """Hold the outcome, as it is kept, against its definition and the run before."""
    with engine.open().store.read() as db:
        outcome = stored_outcome(db, context.partition_key)
    if outcome is None:
        msg = f"Batch '{context.partition_key}' is no trial that has ended: nothing to check."
        raise dg.Failure(msg, allow_retries=False)
    yield _expected(outcome)
    yield _steady(outcome)


def _metadata(outcome: TrialOutcome, runs: list[dict[str, Any]]) -> dict[str, Any]:
    drift = outcome.drift
    figures = {k: v for k, v in outcome.figures.items() if v is not None}
    return {
        "trial": outcome.trial,
        "is_met": outcome.is_met,
        "compared_with": drift.compared_with if drift else "no run before this",
        "drifted": ", ".join(drift.drifted) if drift and drift.drifted else "no",
        "cost_usd": float(figures.get("cost_usd", 0.0)),
        "duration_s": float(figures.get("duration_s", 0.0)),
        "figures": dg.MetadataValue.json(figures),
        "expectations": table(
            [vars(finding) for finding in outcome.findings], ("expectation", "found", "holds")
        ),
        "runs": table([_run(run) for run in runs], _RUN_COLUMNS),
    }


_RUN_COLUMNS = (
    "batch",
    "due",
    "is_met",
    "end_reason",
    "completed",
    "cost_usd",
    "duration_s",
    "same_grade",
    "rank_correlation",
    "agreement",
    "drifted",
)


def _run(row: dict[str, Any]) -> dict[str, Any]:
    figures, drift = row["figures"] or {}, row["drift"] or {}
    return {
        "batch": row["batch_id"],
        "due": f"{row['due_at']:%Y-%m-%d %H:%M} UTC",
        "is_met": row["is_met"],
        "end_reason": row["end_reason"],
        **{name: figures.get(name) for name in ("completed", "cost_usd", "duration_s")},
        **{name: drift.get(name) for name in ("same_grade", "rank_correlation", "agreement")},
        "drifted": ", ".join(drift.get("drifted", [])),
    }


def _expected(outcome: TrialOutcome) -> dg.AssetCheckResult:
    wrong = [finding for finding in outcome.findings if not finding.holds]
    unmet = "; ".join(f"{f.expectation}, found {f.found}" for f in wrong)
    return dg.AssetCheckResult(
        check_name="trial_meets_expectations",
        passed=not wrong,
        severity=dg.AssetCheckSeverity.ERROR,
        description=unmet or f"all {len(outcome.findings)} expectations hold",
        metadata={"expected": len(outcome.findings), "wrong": len(wrong)},
    )


def _steady(outcome: TrialOutcome) -> dg.AssetCheckResult:
    drift = outcome.drift
    if drift is None:
        return dg.AssetCheckResult(
            check_name="trial_has_not_drifted",
            passed=True,
            description="there is no run before this one to compare with",
        )
    figures = {
        name: value
        for name, value in vars(drift).items()
        if isinstance(value, int | float | str) and value is not None
    }
    return dg.AssetCheckResult(
        check_name="trial_has_not_drifted",
        passed=not drift.drifted,
        # The judge or its provider changed, not our rows: a person should check.
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(drift.drifted) or f"as {drift.compared_with} was, within the bands",
        metadata=figures,
    )

"""The next wave of a batch that goes on, asked for in the run that decided on it."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.automation.checks import severity_of
from assets.automation.metadata import history_of, progress_in_run_log
from assets.automation.partitions import (
    OWNERS,
    STORED,
    batch_step,
    batches,
    errors_as_dagster_knows_them,
)
from assets.comparison_pairs import pairs_metadata
from assets.provider_jobs import jobs_metadata
from cj_pipeline.checks.standard_checks import CHECKS
from cj_pipeline.queries.batch_record import refuse_rejected
from cj_pipeline.runtime import Runtime
from cj_pipeline.steps.next_step import NextStep, next_step
from cj_pipeline.steps.plan_wave import plan_wave
from cj_pipeline.steps.submit_wave import submit_wave
from resources.runtime_resource import RuntimeResource


@dg.asset(
    deps=["wave_decision"],
    partitions_def=batches,
    group_name="scaling",
    kinds=STORED,
    owners=OWNERS,
    tags={"paid": "yes"},
    output_required=False,
)
def wave_request(
    context: dg.AssetExecutionContext, engine: RuntimeResource
) -> Iterator[dg.MaterializeResult[None]]:
    """The pairs and provider jobs of the next wave; nothing where none is due.

    They are materialized one by one, each with its checks, as a run of its own would do it: no
    request is sent where a check of the pairs fails that must hold.
    """
    connected, batch_id = engine.open(), context.partition_key
    with errors_as_dagster_knows_them(), connected.store.read() as db:
        refuse_rejected(db, batch_id)
        step = next_step(db, batch_id, connected.clock())
    if step not in {NextStep.PLAN, NextStep.SUBMIT}:
        context.log.info(f"Batch {batch_id} has no wave to ask for now.")
        return
    with batch_step(connected, batch_id, "comparison_pairs"):
        planned = plan_wave(connected, batch_id)
    _tell(context, connected, "comparison_pairs", pairs_metadata(connected, batch_id, planned))
    with (
        batch_step(connected, batch_id, "provider_jobs"),
        progress_in_run_log(context, connected),
    ):
        sent = submit_wave(connected, batch_id)
    _tell(context, connected, "provider_jobs", jobs_metadata(connected, batch_id, sent))
    yield dg.MaterializeResult(
        metadata={
            "wave": planned.wave,
            "n_requests": sent.n_requests,
            "n_jobs_sent": sent.n_sent,
            "reserved_usd": sent.reserved_usd,
        }
    )


def _tell(
    context: dg.AssetExecutionContext, runtime: Runtime, asset: str, metadata: Mapping[str, Any]
) -> None:
    """Record an asset's materialization and its checks; stop where one fails that must hold."""
    batch_id, key = context.partition_key, dg.AssetKey(asset)
    context.log_event(dg.AssetMaterialization(key, partition=batch_id, metadata=dict(metadata)))
    history, broken = history_of(runtime, batch_id), []
    for check in CHECKS[asset]:
        finding = check.claim(history)
        context.log_event(
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=check.name,
                passed=finding.holds,
                severity=severity_of(check),
                description=finding.statement,
                metadata=dict(finding.figures),
                blocking=check.is_blocking,
                partition=batch_id,
            )
        )
        if check.is_blocking and not finding.holds:
            broken.append(f"{check.name}: {finding.statement}")
    if broken:
        msg = f"A check of {asset} that must hold fails, so nothing after it is done. " + "; ".join(
            broken
        )
        raise dg.Failure(msg, allow_retries=False)

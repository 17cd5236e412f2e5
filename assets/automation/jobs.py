"""The jobs that move a batch along; each is one short run in one process.

The sensors start them; so may a person, from the UI, for any partition: every step may be repeated.
"""

import dagster as dg

from assets.automation.partitions import batches, errors_as_dagster_knows_them
from cj_pipeline.operations.cancel import cancel
from cj_pipeline.queries.batch_record import refuse_rejected
from cj_pipeline.steps.next_step import NextStep
from resources.runtime_resource import RuntimeResource

open_batch = dg.define_asset_job(
    "open_batch",
    selection=["essays", "comparison_pairs", "provider_jobs"],
    description="Start a batch (submits its first wave).",
)
next_wave = dg.define_asset_job(
    "next_wave",
    selection=["comparison_pairs", "provider_jobs"],
    description="Submit a batch's next wave, or retry what failed and may be retried.",
)
collect_wave = dg.define_asset_job(
    "collect_wave",
    selection=[
        "comparisons",
        "essay_scores",
        "wave_decision",
        "wave_request",
        "grade_projections",
        "run_artefact",
        "batch_report",
        "trial_outcome",
    ],
    description="Collect a wave, score it, decide, submit the next; at the end grade and publish.",
)
finish_batch = dg.define_asset_job(
    "finish_batch",
    selection=[
        "essay_scores",
        "wave_decision",
        "wave_request",
        "grade_projections",
        "run_artefact",
        "batch_report",
        "trial_outcome",
    ],
    description="Score and decide a batch with nothing in flight; submit its next wave, or at its"
    " end grade and publish it.",
)

GRADED_AGAIN = {"ops": {"grade_projections": {"config": {"again": True}}}}

regrade_batch = dg.define_asset_job(
    "regrade_batch",
    selection=["grade_projections", "run_artefact", "batch_report"],
    config=GRADED_AGAIN,
    description=(
        "Regrade an ended batch as a new revision and publish it. No judge is called."
        " The config may name another scale or earlier batches to be placed on, change a threshold,"
        " or put anchors' grades right."
    ),
)
rescore_batch = dg.define_asset_job(
    "rescore_batch",
    selection=[
        "essay_scores",
        "wave_decision",
        "grade_projections",
        "run_artefact",
        "batch_report",
    ],
    config=GRADED_AGAIN,
    description=(
        "Refit the scores to all verdicts, then regrade an ended batch and publish it. No judge "
        "is called."
    ),
)


@dg.op
def stop_asking(context: dg.OpExecutionContext, engine: RuntimeResource) -> None:
    """Request nothing more for a batch; what its provider jobs finished is still collected."""
    runtime = engine.open()
    with errors_as_dagster_knows_them():
        with runtime.store.read() as db:
            refuse_rejected(db, context.partition_key)
        cancelled = cancel(runtime, context.partition_key)
    context.log.info(f"{cancelled.n_jobs} provider jobs were asked to stop.")


@dg.job(
    partitions_def=batches,
    description="End a batch now: request nothing more, cancel its provider jobs.",
)
def cancel_batch() -> None:
    """One step: see `stop_asking`."""
    stop_asking()


JOB_FOR = {
    NextStep.PLAN: next_wave.name,
    NextStep.SUBMIT: next_wave.name,
    NextStep.COLLECT: collect_wave.name,
    NextStep.DECIDE: finish_batch.name,
    NextStep.PROJECT: finish_batch.name,
    NextStep.PUBLISH: finish_batch.name,
    NextStep.RESCORE: rescore_batch.name,
}
"""The job that takes each step; polling is done by the caller that requests the runs."""

ALL_JOBS = (
    open_batch,
    next_wave,
    collect_wave,
    finish_batch,
    rescore_batch,
    regrade_batch,
    cancel_batch,
)

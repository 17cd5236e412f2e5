"""What is checked of each asset, and how a failure is shown.

Which claims there are and which of them stop a batch is `cj_pipeline.standard_checks`: those are
errors and block, so that nothing after them in the run happens; the others are warnings. A batch's
own assertions never block a run: where one that counts fails, the batch is published without
grades, so that people have the report to decide by.
"""

import logging
from collections.abc import Iterator

import dagster as dg

from assets.automation.metadata import history_of
from assets.automation.partitions import batches
from cj_pipeline.checks import claims
from cj_pipeline.checks.batch_checks import check_assertions
from cj_pipeline.checks.claims import Finding
from cj_pipeline.checks.standard_checks import CHECKS, Check
from cj_pipeline.queries.batch_record import load_batch
from cj_pipeline.queries.overview import outputs
from resources.runtime_resource import RuntimeResource

# A batch that goes on has no grades to check, and nothing after them runs either; Dagster warns of
# each check left out as though the rest of the run went on without it.
logging.getLogger("dagster._core.execution.plan.active").addFilter(
    lambda record: "emitted no result" not in record.getMessage()
)


def severity_of(check: Check) -> dg.AssetCheckSeverity:
    """Return how a failure is shown."""
    return dg.AssetCheckSeverity.ERROR if check.is_grave else dg.AssetCheckSeverity.WARN


def checks_of(asset: str) -> dg.AssetChecksDefinition:
    """Return the checks of one asset as one step, which reads the store once."""

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=[
            dg.AssetCheckSpec(
                check.name,
                asset=asset,
                description=check.claim.__doc__,
                blocking=check.is_blocking,
                partitions_def=batches,
            )
            for check in CHECKS[asset]
        ],
        can_subset=True,
    )
    def run_checks(
        context: dg.AssetCheckExecutionContext, engine: RuntimeResource
    ) -> Iterator[dg.AssetCheckResult]:
        history = history_of(engine.open(), context.partition_key)
        requested = {key.name for key in context.selected_asset_check_keys}
        for check in CHECKS[asset]:
            if check.name in requested:
                yield check_result(asset, check.name, check.claim(history), severity_of(check))

    return run_checks


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "artefact_is_valid",
            asset="run_artefact",
            description=claims.artefact_is_valid.__doc__,
            blocking=True,
            partitions_def=batches,
        )
    ]
)
def run_artefact_checks(
    context: dg.AssetCheckExecutionContext, engine: RuntimeResource
) -> Iterator[dg.AssetCheckResult]:
    """The artefact is read back from the disk as its reader will see it."""
    runtime = engine.open()
    with runtime.store.read() as db:
        written = outputs(db, context.partition_key).get("artefact")
    content = runtime.published.read(written.path, written.sha256) if written else None
    if content is None:
        finding = Finding(False, "no artefact is recorded for this batch")
    else:
        finding = claims.artefact_is_valid(content)
    yield check_result("run_artefact", "artefact_is_valid", finding, dg.AssetCheckSeverity.ERROR)


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "own_assertions_hold",
            asset="wave_decision",
            description="What `batch.yaml` or the trial asserts of the batch, judged at its end.",
            partitions_def=batches,
        )
    ]
)
def own_assertion_checks(
    context: dg.AssetCheckExecutionContext, engine: RuntimeResource
) -> Iterator[dg.AssetCheckResult]:
    """What must come out is judged once it can be known; until then the figures are shown."""
    connected, batch_id = engine.open(), context.partition_key
    with connected.store.read() as db:
        record = load_batch(db, batch_id)
        checked = check_assertions(db, batch_id, record.settings.assertions, connected.clock())
    failed = [each for each in checked if not each.finding.holds]
    is_grave = any(each.is_blocking for each in failed)
    if not checked:
        statement = "the batch has no assertions of its own"
    elif not record.has_ended:
        statement = f"judged at the end; now {len(checked) - len(failed)} of {len(checked)} hold"
    else:
        statement = f"{len(checked) - len(failed)} of {len(checked)} hold"
        if is_grave:
            statement += ", so no grades leave"
    yield dg.AssetCheckResult(
        asset_key="wave_decision",
        check_name="own_assertions_hold",
        passed=not failed or not record.has_ended,
        severity=dg.AssetCheckSeverity.ERROR if is_grave else dg.AssetCheckSeverity.WARN,
        description="; ".join([statement, *(f"{c.name}: {c.finding.statement}" for c in failed)]),
        metadata={each.name: each.finding.figures.get("figure", "none") for each in checked},
    )


def check_result(
    asset: str, name: str, finding: Finding, severity: dg.AssetCheckSeverity
) -> dg.AssetCheckResult:
    """Return a finding as Dagster shows it."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=finding.holds,
        severity=severity,
        description=finding.statement,
        metadata=dict(finding.figures),
    )


ALL_CHECKS = [
    *(checks_of(asset) for asset in CHECKS),
    own_assertion_checks,
    run_artefact_checks,
]

"""What is checked of each asset, how grave a failure is, and what it stops.

The claims themselves are `cj_pipeline.assertions`. A claim about what is true of our own rows is an
error and blocks: nothing after it in the run happens, so no request is sent and no grade leaves. A
claim about how well a batch goes is a warning: a person should look, and the batch goes on.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.asset_pages import history_of
from assets.batch_partitions import batches
from cj_pipeline import assertions
from cj_pipeline.assertions import Finding
from cj_pipeline.batch_history import BatchHistory
from resources.engine_resource import EngineResource

warnings.filterwarnings("ignore", message=".*partitions_def.* on an AssetCheckSpec")
# A batch that goes on has no grades to check, and nothing after them runs either; Dagster warns of
# each check left out as though the rest of the run went on without it.
logging.getLogger("dagster._core.execution.plan.active").addFilter(
    lambda record: "emitted no result" not in record.getMessage()
)


@dataclass(frozen=True)
class Check:
    """A claim about a batch, and whether its failure stops what comes after."""

    claim: Callable[[BatchHistory], Finding]
    is_blocking: bool

    @property
    def name(self) -> str:
        """The claim's name."""
        return self.claim.__name__

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """How a failure is shown."""
        return dg.AssetCheckSeverity.ERROR if self.is_blocking else dg.AssetCheckSeverity.WARN


def stops(claim: Callable[[BatchHistory], Finding]) -> Check:
    """Return a check whose failure stops the run."""
    return Check(claim, is_blocking=True)


def warns(claim: Callable[[BatchHistory], Finding]) -> Check:
    """Return a check whose failure a person should see, and nothing more."""
    return Check(claim, is_blocking=False)


CHECKS: dict[str, tuple[Check, ...]] = {
    "comparison_pairs": (stops(assertions.pairs_are_sound), stops(assertions.budget_is_kept)),
    "provider_jobs": (
        stops(assertions.spend_is_within_cap),
        stops(assertions.requests_are_recorded),
        stops(assertions.mode_is_recorded),
    ),
    "comparisons": (
        stops(assertions.rows_add_up),
        warns(assertions.enough_succeed),
        warns(assertions.no_place_is_preferred),
        warns(assertions.bills_agree_with_providers),
    ),
    "essay_scores": (
        stops(assertions.scores_are_sound),
        # Early waves need not have joined all essays yet; `success_is_earned` blocks at the end.
        warns(assertions.net_is_connected),
        warns(assertions.positions_are_fair),
        warns(assertions.errors_are_small),
    ),
    "wave_decision": (
        stops(assertions.callbacks_are_within_denominator),
        stops(assertions.success_is_earned),
        warns(assertions.batch_goes_well),
    ),
    "grade_projections": (
        stops(assertions.every_essay_is_graded_or_none),
        stops(assertions.probabilities_are_real),
        stops(assertions.boundaries_are_in_order),
        # The projection itself declines to grade when anchors disagree too much.
        warns(assertions.anchors_are_in_order),
    ),
}


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
        context: dg.AssetCheckExecutionContext, engine: EngineResource
    ) -> Iterator[dg.AssetCheckResult]:
        history = history_of(engine.open(), context.partition_key)
        asked = {key.name for key in context.selected_asset_check_keys}
        for check in CHECKS[asset]:
            if check.name in asked:
                yield check_result(asset, check.name, check.claim(history), check.severity)

    return run_checks


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "artefact_is_valid",
            asset="run_artefact",
            description=assertions.artefact_is_valid.__doc__,
            blocking=True,
            partitions_def=batches,
        )
    ]
)
def run_artefact_checks(
    context: dg.AssetCheckExecutionContext, engine: EngineResource
) -> Iterator[dg.AssetCheckResult]:
    """The artefact is read back from the disk as whoever it is for will read it."""
    with engine.open().store.read() as db:
        row = db.one("SELECT path FROM run_artefact WHERE batch_id = ?", [context.partition_key])
    if row is None:
        finding = Finding(False, "no artefact is recorded for this batch")
    else:
        finding = assertions.artefact_is_valid(Path(row["path"]))
    yield check_result("run_artefact", "artefact_is_valid", finding, dg.AssetCheckSeverity.ERROR)


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


ALL_CHECKS = [*(checks_of(asset) for asset in CHECKS), run_artefact_checks]

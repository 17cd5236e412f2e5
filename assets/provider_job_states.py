"""The jobs at the providers, which nothing here makes go on: their states are observed."""

import dagster as dg

from assets.automation.job_states import JOB_STATES
from assets.automation.partitions import OWNERS, batches

provider_job_states = dg.AssetSpec(
    JOB_STATES,
    deps=["provider_jobs"],
    partitions_def=batches,
    group_name="judging",
    kinds={"api"},
    owners=OWNERS,
    description="Each change of a provider job's state, as it was noticed here.",
)

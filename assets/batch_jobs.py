"""The jobs that move a batch along; each is one short run in one process."""

import dagster as dg

from assets.batch_partitions import batches

open_batch = dg.define_asset_job(
    "open_batch",
    selection=["essays", "comparison_pairs", "provider_jobs"],
    partitions_def=batches,
    description="Take a batch in and ask its first wave.",
)
next_wave = dg.define_asset_job(
    "next_wave",
    selection=["comparison_pairs", "provider_jobs"],
    partitions_def=batches,
    description="Ask a batch's next wave, or what failed and may be asked again.",
)
collect_wave = dg.define_asset_job(
    "collect_wave",
    selection=[
        "comparisons",
        "essay_scores",
        "wave_decision",
        "grade_projections",
        "run_artefact",
        "batch_report",
    ],
    partitions_def=batches,
    description="Bring a wave home, score it, decide; at the end grade and publish.",
)
finish_batch = dg.define_asset_job(
    "finish_batch",
    selection=["wave_decision", "grade_projections", "run_artefact", "batch_report"],
    partitions_def=batches,
    description="Decide on a batch that has nothing in flight, then grade and publish it.",
)

ALL_JOBS = (open_batch, next_wave, collect_wave, finish_batch)

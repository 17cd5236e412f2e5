"""Every metric there is: its name, kind, labels, what it means, and the query that counts it.

Each query answers for the whole store where `$batch` is `*`, and for one batch where it is that
batch's id (which holds no character that means anything to GLOB), so an operator's dashboard and a
batch's own assertions mean the same thing by the same name. Reading and printing is `metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cj_pipeline.batch.comparisons import RequestOutcome
from cj_pipeline.batch.options import WaitingFor
from cj_pipeline.stopping.continuation import BatchOutcome, ContinuationDecision, EndReason

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """A metric and how it is counted.

    Attributes:
        name: As Prometheus knows it; units ride in it.
        kind: A counter only ever rises, a gauge is the present state, a histogram counts values
            by size.
        help: What it means, in one line.
        labels: Their names, in the order the query gives their columns.
        sql: Gives the labels' columns and `value`; for a histogram one row per thing measured.
        always: Label values that are exported even where there is nothing to count yet, so that an
            alert on them has a zero to compare with; never of a histogram.
        bounds: Upper bounds of a histogram's buckets, without infinity.
        of_one_batch: Whether it only means something for one batch; then it is not scraped.
        adds_up: Whether the sum over its series means something.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    sql: str
    always: tuple[tuple[str, ...], ...] = ()
    bounds: tuple[float, ...] = ()
    of_one_batch: bool = False
    adds_up: bool = True


_MODES = (("per_request",), ("serial_bundle",), ("provider_batch_api",))
_ITEMS = (1.0, 2.0, 5.0, 10.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)
_ITEMS_IN_BUNDLE = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_LATENCIES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
_HOURS = 3600.0
_JOB_DURATIONS = (
    *(1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0),
    *(hours * _HOURS for hours in (1, 2, 4, 8, 12, 24, 48)),
)
_WAITS = (
    *(0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
    *(hours * _HOURS for hours in (1, 6, 24)),
)


def _one_each(values: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((value,) for value in values)


_REQUESTS = (
    Metric(
        "cj_llm_requests_total",
        "counter",
        "Requests sent to a provider; a retry is another request.",
        ("batching_mode",),
        """
        SELECT j.batching_mode, count(*) AS value
        FROM attempts a
        JOIN provider_jobs j USING (submission_key)
        LEFT JOIN live_calls l ON l.submission_key = a.submission_key AND l.custom_id = a.custom_id
        WHERE j.submitted_at IS NOT NULL AND j.batch_id GLOB $batch
          -- Of a job of single calls some may wait yet, or have ended before their turn came.
          AND (j.batching_mode = 'provider_batch_api' OR l.n_tries > 0
               OR (l.n_tries IS NULL AND a.outcome <> 'cancelled'))
        GROUP BY j.batching_mode
        """,
        always=_MODES,
    ),
    Metric(
        "cj_llm_batches_started_total",
        "counter",
        "Batches with at least one request sent to a provider.",
        ("batching_mode",),
        """
        SELECT batching_mode, count(DISTINCT batch_id) AS value FROM provider_jobs
        WHERE submitted_at IS NOT NULL AND batch_id GLOB $batch GROUP BY batching_mode
        """,
        always=_MODES,
    ),
    Metric(
        "llm_provider_requests_total",
        "counter",
        "Requests that have an outcome; request_type tells a first request from a retry.",
        ("provider", "model", "request_type", "status"),
        """
        SELECT j.provider, j.model,
               CASE WHEN a.attempt = 1 THEN 'comparison' ELSE 'repeated_comparison' END
                   AS request_type,
               a.outcome AS status, count(*) AS value
        FROM attempts a JOIN provider_jobs j USING (submission_key)
        WHERE a.outcome IS NOT NULL AND j.batch_id GLOB $batch
        GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_tokens_total",
        "counter",
        "Tokens as providers counted them; cached and cache_write are parts of prompt, and"
        " reasoning of completion.",
        ("provider", "model", "token_type"),
        """
        SELECT provider, model, token_type, sum(n) AS value FROM (
            SELECT j.provider, j.model,
                   unnest(['prompt', 'cached', 'cache_write', 'completion', 'reasoning'])
                       AS token_type,
                   unnest([a.tokens_prompt, a.tokens_cached, a.tokens_cache_write,
                           a.tokens_completion, a.tokens_reasoning]) AS n
            FROM attempts a JOIN provider_jobs j USING (submission_key)
            WHERE a.outcome IS NOT NULL AND j.batch_id GLOB $batch
        ) GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_cost_usd_total",
        "counter",
        "US dollars billed for settled provider jobs; nominal where the judge is simulated.",
        ("provider", "model"),
        """
        SELECT provider, model, sum(billed_usd) AS value FROM provider_jobs
        WHERE billed_usd IS NOT NULL AND batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "cj_spend_reserved_usd",
        "gauge",
        "US dollars reserved: the most that requests without a bill can cost.",
        (),
        """
        SELECT coalesce(sum(reserved_usd) FILTER (billed_usd IS NULL), 0) AS value
        FROM provider_jobs WHERE batch_id GLOB $batch
        """,
    ),
)

_JOBS = (
    Metric(
        "llm_provider_batch_api_jobs_total",
        "counter",
        "Provider jobs that were scheduled, and how they ended; refused ones never began.",
        ("provider", "model", "status"),
        """
        SELECT provider, model, status, count(*) AS value FROM (
            SELECT provider, model,
                   unnest([CASE WHEN submitted_at IS NOT NULL THEN 'scheduled' END,
                           CASE WHEN state = 'refused' THEN 'refused' ELSE outcome END]) AS status
            FROM provider_jobs WHERE batching_mode = 'provider_batch_api' AND batch_id GLOB $batch
        ) WHERE status IS NOT NULL GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_batch_api_items_per_job",
        "histogram",
        "Requests in each provider job that was scheduled.",
        ("provider", "model"),
        """
        SELECT provider, model, n_requests AS value FROM provider_jobs
        WHERE batching_mode = 'provider_batch_api' AND submitted_at IS NOT NULL
          AND batch_id GLOB $batch
        """,
        bounds=_ITEMS,
    ),
    Metric(
        "llm_provider_batch_api_job_duration_seconds",
        "histogram",
        "From a provider job's acceptance to its end, as this pipeline saw them.",
        ("provider", "model"),
        """
        -- A provider tells its end in whole seconds, and by its own clock.
        SELECT provider, model, greatest(0, epoch(ended_at) - epoch(submitted_at)) AS value
        FROM provider_jobs
        WHERE batching_mode = 'provider_batch_api' AND submitted_at IS NOT NULL
          AND ended_at IS NOT NULL AND batch_id GLOB $batch
        """,
        bounds=_JOB_DURATIONS,
    ),
    Metric(
        "llm_provider_batch_api_collection_delay_seconds",
        "histogram",
        "From a provider job's end until its replies are in the store.",
        ("provider", "model"),
        """
        SELECT provider, model, greatest(0, epoch(collected_at) - epoch(ended_at)) AS value
        FROM provider_jobs
        WHERE batching_mode = 'provider_batch_api' AND ended_at IS NOT NULL
          AND collected_at IS NOT NULL AND batch_id GLOB $batch
        """,
        bounds=_WAITS,
    ),
    Metric(
        "llm_provider_batch_api_open_jobs",
        "gauge",
        "Provider jobs that are at the provider and have not ended.",
        ("provider", "model"),
        """
        SELECT provider, model, count(*) FILTER (phase = 'open') AS value
        FROM v_job_phases
        WHERE batching_mode = 'provider_batch_api' AND batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "cj_provider_jobs_ambiguous",
        "gauge",
        "Provider jobs that may or may not exist at the provider; a person may have to check.",
        (),
        """
        SELECT count(*) FILTER (state = 'ambiguous') AS value
        FROM provider_jobs WHERE batch_id GLOB $batch
        """,
    ),
    Metric(
        "llm_provider_serial_bundle_calls_total",
        "counter",
        "Serial bundles sent.",
        ("provider", "model"),
        """
        SELECT provider, model, count(*) AS value FROM provider_jobs
        WHERE batching_mode = 'serial_bundle' AND submitted_at IS NOT NULL
          AND batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_serial_bundle_items_per_call",
        "histogram",
        "Comparisons in each serial bundle sent.",
        ("provider", "model"),
        """
        SELECT provider, model, n_requests AS value FROM provider_jobs
        WHERE batching_mode = 'serial_bundle' AND submitted_at IS NOT NULL AND batch_id GLOB $batch
        """,
        bounds=_ITEMS_IN_BUNDLE,
    ),
    Metric(
        "llm_provider_queue_wait_time_seconds",
        "histogram",
        "How long each ended request waited, from ready until it was sent or abandoned.",
        ("queue_processing_mode", "result"),
        """
        SELECT replace(batching_mode, 'provider_batch_api', 'batch_api') AS queue_processing_mode,
               CASE a.outcome WHEN 'succeeded' THEN 'success' WHEN 'expired' THEN 'expired'
                    ELSE 'failure' END AS result,
               greatest(
                   coalesce(
                       l.wait_s,
                       epoch(CASE WHEN l.n_tries = 0 THEN l.answered_at ELSE j.submitted_at END)
                           - epoch(a.requested_at)
                   ),
                   0
               ) AS value
        FROM attempts a
        JOIN provider_jobs j USING (submission_key)
        LEFT JOIN live_calls l ON l.submission_key = a.submission_key AND l.custom_id = a.custom_id
        WHERE a.outcome IS NOT NULL AND j.submitted_at IS NOT NULL AND j.batch_id GLOB $batch
          AND (j.batching_mode = 'provider_batch_api' OR l.n_tries IS NOT NULL
               OR a.outcome <> 'cancelled')
        """,
        bounds=_WAITS,
    ),
    Metric(
        "llm_provider_queue_expiry_total",
        "counter",
        "Requests that expired before they were judged: job_window is the provider's own limit,"
        " result_ttl the profile's.",
        ("provider", "queue_processing_mode", "expiry_reason"),
        """
        SELECT j.provider,
               replace(batching_mode, 'provider_batch_api', 'batch_api') AS queue_processing_mode,
               CASE WHEN l.outcome = 'expired' THEN 'result_ttl' ELSE 'job_window' END
                   AS expiry_reason,
               count(*) AS value
        FROM attempts a
        JOIN provider_jobs j USING (submission_key)
        LEFT JOIN live_calls l ON l.submission_key = a.submission_key AND l.custom_id = a.custom_id
        WHERE a.outcome = 'expired' AND j.batch_id GLOB $batch GROUP BY ALL
        """,
    ),
)

_LIVE = (
    Metric(
        "llm_provider_live_calls_total",
        "counter",
        "Single calls by outcome: answered, failed, or expired before they were sent.",
        ("provider", "model", "outcome"),
        """
        SELECT j.provider, j.model, l.outcome, count(*) AS value
        FROM live_calls l JOIN provider_jobs j USING (submission_key)
        WHERE l.batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_live_tries_total",
        "counter",
        "Attempts that single calls took; more than the calls if some were retried.",
        ("provider", "model"),
        """
        SELECT j.provider, j.model, sum(l.n_tries) AS value
        FROM live_calls l JOIN provider_jobs j USING (submission_key)
        WHERE l.batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_live_latency_seconds",
        "histogram",
        "How long the last attempt of each single call took.",
        ("provider", "model"),
        """
        SELECT j.provider, j.model, greatest(l.latency_s, 0) AS value
        FROM live_calls l JOIN provider_jobs j USING (submission_key)
        WHERE l.latency_s IS NOT NULL AND l.batch_id GLOB $batch
        """,
        bounds=_LATENCIES,
    ),
    Metric(
        "llm_provider_queue_waiting",
        "gauge",
        "Single calls waiting to be sent or answered.",
        ("provider", "model"),
        """
        SELECT provider, model, sum(n_waiting) AS value FROM v_live_queue
        WHERE batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "llm_provider_queue_oldest_wait_seconds",
        "gauge",
        "Age of the oldest single call without an answer; 0 if there is none.",
        (),
        """
        SELECT coalesce(greatest(epoch($now) - min(epoch(waiting_since)), 0), 0) AS value
        FROM v_live_queue WHERE batch_id GLOB $batch
        """,
    ),
    Metric(
        "llm_provider_circuit_breaker_open",
        "gauge",
        "1 while the circuit breaker of a model is open or half-open, 0 otherwise.",
        ("provider", "model"),
        """
        SELECT provider, model, max(CASE state WHEN 'closed' THEN 0 ELSE 1 END) AS value
        FROM circuit_breakers WHERE $batch = '*' GROUP BY ALL
        """,
    ),
)

_WEBHOOKS = (
    Metric(
        "llm_provider_webhooks_total",
        "counter",
        "Verified webhooks received; a repeated delivery counts once.",
        ("provider", "kind"),
        """
        SELECT provider, kind, count(*) AS value FROM webhooks WHERE $batch = '*' GROUP BY ALL
        """,
    ),
)

_COMPARISONS = (
    Metric(
        "cj_comparisons_total",
        "counter",
        "Comparisons that have ended: with a verdict, or failed with no retries left.",
        ("status",),
        """
        SELECT status, count(*) AS value
        FROM comparisons WHERE batch_id GLOB $batch
        GROUP BY status
        """,
        always=_one_each(("succeeded", "failed")),
    ),
    Metric(
        "cj_comparison_failures_total",
        "counter",
        "Comparisons that failed with no retries left, by the outcome of their last attempt.",
        ("reason",),
        """
        SELECT failure_reason AS reason, count(*) AS value FROM comparisons
        WHERE status = 'failed' AND batch_id GLOB $batch GROUP BY failure_reason
        """,
        always=_one_each(
            [kind.value for kind in RequestOutcome if kind is not RequestOutcome.SUCCEEDED]
        ),
    ),
    Metric(
        "cj_comparisons_planned_total",
        "counter",
        "Comparisons planned, whatever their outcome.",
        (),
        "SELECT count(*) AS value FROM comparison_pairs WHERE batch_id GLOB $batch",
    ),
    Metric(
        "cj_comparisons_pending",
        "gauge",
        "Requests of running batches without a reply.",
        (),
        """
        SELECT count(*) FILTER (a.outcome IS NULL) AS value
        FROM attempts a JOIN batches b USING (batch_id)
        WHERE b.state = 'running' AND batch_id GLOB $batch
        """,
    ),
    Metric(
        "cj_callbacks_total",
        "counter",
        "Replies as they came in: matched, duplicate, foreign or garbled; and single calls that"
        " failed or expired without one.",
        ("kind",),
        "SELECT kind, count(*) AS value FROM callbacks WHERE batch_id GLOB $batch GROUP BY kind",
        always=_one_each(("matched", "duplicate", "foreign", "garbled", "failed", "expired")),
    ),
)

_BATCHES = (
    Metric(
        "cj_workflow_decisions_total",
        "counter",
        "Decisions after each wave; waiting for callbacks is not counted.",
        ("decision",),
        """
        SELECT decision, count(*) AS value
        FROM wave_decisions WHERE batch_id GLOB $batch
        GROUP BY decision
        """,
        always=_one_each(
            [
                decision.value
                for decision in ContinuationDecision
                if decision is not ContinuationDecision.WAIT_FOR_CALLBACKS
            ]
        ),
    ),
    Metric(
        "cj_batches",
        "gauge",
        "Batches by state.",
        ("state",),
        "SELECT state, count(*) AS value FROM batches WHERE batch_id GLOB $batch GROUP BY state",
        always=_one_each(("running", "succeeded", "failed", "cancelled", "rejected")),
    ),
    Metric(
        "cj_arrivals",
        "gauge",
        "Folders and zip files that were put into the inbox, by state.",
        ("state",),
        "SELECT state, count(*) AS value FROM arrivals WHERE batch_id GLOB $batch GROUP BY state",
        always=_one_each(("settling", "waiting", "opened", "rejected", "changed", "forgotten")),
    ),
    Metric(
        "cj_batches_waiting",
        "gauge",
        "Running batches that wait for something beside a provider's own work, by what it is.",
        ("waiting_for",),
        """
        SELECT waiting_for, count(*) AS value FROM v_batch_waiting
        WHERE batch_id GLOB $batch GROUP BY waiting_for
        """,
        always=_one_each([each.value for each in WaitingFor]),
    ),
    Metric(
        "cj_batches_ended_total",
        "counter",
        "Batches that have ended, by reason.",
        ("end_reason",),
        """
        SELECT end_reason, count(*) AS value FROM batches
        WHERE end_reason IS NOT NULL AND batch_id GLOB $batch GROUP BY end_reason
        """,
        always=_one_each([reason.value for reason in EndReason]),
    ),
    Metric(
        "cj_outcomes_total",
        "counter",
        "Batches that have ended, by outcome; partial: some comparisons failed.",
        ("outcome",),
        """
        SELECT outcome, count(*) AS value FROM progress_events
        WHERE kind = 'ended' AND batch_id GLOB $batch GROUP BY outcome
        """,
        always=_one_each([outcome.value for outcome in BatchOutcome]),
    ),
    Metric(
        "cj_gradings_total",
        "counter",
        "Gradings, regradings included, by whether they gave grades.",
        ("result",),
        """
        SELECT CASE WHEN is_graded THEN 'graded' ELSE 'declined' END AS result, count(*) AS value
        FROM grading_reports WHERE batch_id GLOB $batch GROUP BY ALL
        """,
        always=_one_each(("graded", "declined")),
    ),
    Metric(
        "cj_oldest_open_request_age_seconds",
        "gauge",
        "Age of the oldest request of a running batch without an outcome; 0 if there is none.",
        (),
        """
        SELECT coalesce(greatest(epoch($now) - min(epoch(a.requested_at)), 0), 0) AS value
        FROM attempts a JOIN batches b USING (batch_id)
        WHERE b.state = 'running' AND a.outcome IS NULL AND batch_id GLOB $batch
        """,
    ),
    Metric(
        "cj_longest_silence_seconds",
        "gauge",
        "Longest time without a change in any running batch, from its ingestion on.",
        (),
        """
        SELECT coalesce(max(greatest(epoch($now) - moved, 0)), 0) AS value FROM (
            SELECT greatest(
                epoch(b.created_at), coalesce(max(epoch(a.requested_at)), 0),
                coalesce(max(epoch(a.completed_at)), 0)
            ) AS moved
            FROM batches b LEFT JOIN attempts a USING (batch_id)
            WHERE b.state = 'running' AND b.runner_mode = 'execute' AND batch_id GLOB $batch
            GROUP BY batch_id, b.created_at
        )
        """,
    ),
    Metric(
        "cj_oldest_uncollected_job_age_seconds",
        "gauge",
        "How long the results of an ended provider job have waited to be settled.",
        (),
        """
        SELECT coalesce(greatest(epoch($now) - min(epoch(ended_at)), 0), 0) AS value
        FROM v_job_phases WHERE phase = 'collectable' AND batch_id GLOB $batch
        """,
    ),
    Metric(
        "cj_oldest_unpublished_batch_age_seconds",
        "gauge",
        "How long an ended batch has waited for its report: a failed check, or no daemon.",
        (),
        """
        SELECT coalesce(greatest(epoch($now) - min(epoch(ended_at)), 0), 0) AS value
        FROM batches b ANTI JOIN batch_report r USING (batch_id)
        WHERE state NOT IN ('running', 'rejected') AND batch_id GLOB $batch
        """,
    ),
)

_TRIALS = (
    Metric(
        "cj_trial_runs_total",
        "counter",
        "Trial runs that have ended, by whether every expectation was met.",
        ("trial", "result"),
        """
        SELECT trial, CASE WHEN is_met THEN 'met' ELSE 'missed' END AS result, count(*) AS value
        FROM trial_runs WHERE is_met IS NOT NULL AND batch_id GLOB $batch GROUP BY ALL
        """,
    ),
    Metric(
        "cj_trial_drifted_runs_total",
        "counter",
        "Trial runs with a figure outside the band of earlier runs.",
        ("trial",),
        """
        SELECT trial, count(*) FILTER (json_array_length(drift, '$.drifted') > 0) AS value
        FROM trial_runs WHERE concluded_at IS NOT NULL AND batch_id GLOB $batch GROUP BY trial
        """,
    ),
    Metric(
        "cj_trial_last_concluded_timestamp_seconds",
        "gauge",
        "When a run of the trial last ended, in seconds since 1970.",
        ("trial",),
        """
        SELECT trial, max(epoch(concluded_at)) AS value FROM trial_runs
        WHERE concluded_at IS NOT NULL AND batch_id GLOB $batch GROUP BY trial
        """,
    ),
)

_ONE_BATCH = (
    Metric(
        "cj_batch_essays",
        "gauge",
        "Essays of the batch.",
        ("role",),
        """
        SELECT CASE WHEN is_anchor THEN 'anchor' ELSE 'student' END AS role, count(*) AS value
        FROM essays WHERE batch_id GLOB $batch GROUP BY ALL
        """,
        always=_one_each(("student", "anchor")),
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_waves",
        "gauge",
        "Waves that have a decision.",
        (),
        "SELECT count(*) AS value FROM wave_decisions WHERE batch_id GLOB $batch",
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_success_ratio",
        "gauge",
        "Share of the ended comparisons that have a verdict.",
        (),
        """
        SELECT avg(CASE status WHEN 'succeeded' THEN 1.0 ELSE 0.0 END) AS value
        FROM comparisons WHERE batch_id GLOB $batch HAVING count(*) > 0
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_pair_coverage_ratio",
        "gauge",
        "Share of the possible pairs that have a verdict.",
        (),
        """
        SELECT CAST(details->>'successful_pairs_count' AS DOUBLE)
               / CAST(details->>'max_possible_pairs' AS DOUBLE) AS value
        FROM (
            SELECT * FROM wave_decisions WHERE batch_id GLOB $batch
            ORDER BY wave DESC LIMIT 1
        )
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_reliability",
        "gauge",
        "Reliability after the last wave; empirical_bayes, among ten students or more, is the one"
        " to quote, with its 95 % limits.",
        ("estimate",),
        """
        SELECT estimate, value FROM (
            SELECT unnest(['empirical_bayes', 'empirical_bayes_lower', 'empirical_bayes_upper',
                           'scale_separation']) AS estimate,
                   unnest([CAST(details->>'empirical_bayes_reliability' AS DOUBLE),
                           CAST(details->'student_reliability'->>'lower' AS DOUBLE),
                           CAST(details->'student_reliability'->>'upper' AS DOUBLE),
                           CAST(details->>'scale_separation_reliability' AS DOUBLE)]) AS value
            FROM (
            SELECT * FROM wave_decisions WHERE batch_id GLOB $batch
            ORDER BY wave DESC LIMIT 1
        )
        ) WHERE value IS NOT NULL
        """,
        of_one_batch=True,
        adds_up=False,
    ),
    Metric(
        "cj_batch_standard_error",
        "gauge",
        "Standard errors of students' scores after the last wave, in logits.",
        ("statistic",),
        """
        SELECT statistic, value FROM (
            SELECT unnest(['mean', 'max']) AS statistic,
                   unnest([CAST(details->'bt_se_summary'->>'mean_se' AS DOUBLE),
                           CAST(details->'bt_se_summary'->>'max_se' AS DOUBLE)]) AS value
            FROM (
            SELECT * FROM wave_decisions WHERE batch_id GLOB $batch
            ORDER BY wave DESC LIMIT 1
        )
        ) WHERE value IS NOT NULL
        """,
        of_one_batch=True,
        adds_up=False,
    ),
    Metric(
        "cj_batch_score_change_max",
        "gauge",
        "Largest change of any essay's score in the last wave, in logits.",
        (),
        """
        SELECT max_score_change AS value FROM (
            SELECT * FROM wave_decisions WHERE batch_id GLOB $batch ORDER BY wave DESC LIMIT 1
        ) WHERE max_score_change IS NOT NULL
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_positional_skew_max",
        "gauge",
        "Largest |A - B| / (A + B) of any essay over all comparisons planned.",
        (),
        "SELECT max(skew) AS value FROM v_positions WHERE batch_id GLOB $batch HAVING count(*) > 0",
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_first_shown_won_ratio",
        "gauge",
        "Share of the verdicts won by the essay shown first; a tie counts a half.",
        (),
        """
        SELECT avg(CASE winner WHEN 'A' THEN 1.0 WHEN 'B' THEN 0.0 ELSE 0.5 END) AS value
        FROM comparisons WHERE status = 'succeeded' AND batch_id GLOB $batch HAVING count(*) > 0
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_anchor_kendall_tau",
        "gauge",
        "How well the anchors' scores follow their grades, in the last grading.",
        (),
        """
        SELECT CAST(anchor_check->>'kendall_tau' AS DOUBLE) AS value FROM grading_reports
        WHERE anchor_check->>'kendall_tau' IS NOT NULL AND batch_id GLOB $batch
        ORDER BY revision DESC LIMIT 1
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_cost_usd",
        "gauge",
        "US dollars billed for the batch so far; nominal where the judge is simulated.",
        (),
        """
        SELECT coalesce(sum(billed_usd), 0) AS value
        FROM provider_jobs WHERE batch_id GLOB $batch
        """,
        of_one_batch=True,
    ),
    Metric(
        "cj_batch_duration_seconds",
        "gauge",
        "From the batch's arrival to its end, or to now while it runs.",
        (),
        """
        SELECT greatest(0, epoch(coalesce(ended_at, $now)) - epoch(created_at)) AS value
        FROM batches WHERE batch_id GLOB $batch
        """,
        of_one_batch=True,
    ),
)

_SENSORS = (
    Metric(
        "cj_sensor_last_tick_timestamp_seconds",
        "gauge",
        "When a sensor of Dagster last ended a tick without an error, to a minute.",
        ("sensor",),
        "SELECT sensor, epoch(ticked_at) AS value FROM sensor_ticks",
        adds_up=False,
    ),
)

_LIMITS = (
    Metric(
        "cj_spend_share_of_limit",
        "gauge",
        "The largest part of a limit that is spent or set aside: of a running batch's own cap, of"
        " the installation's ceiling for a batch, of its ceiling for today.",
        ("limit",),
        """
        WITH used AS (
            SELECT b.batch_id, any_value(CAST(b.settings->>'spend_cap_usd' AS DOUBLE)) AS cap,
                   sum(coalesce(j.billed_usd, j.reserved_usd) + coalesce(j.possible_usd, 0)) AS usd
            FROM batches b JOIN provider_jobs j USING (batch_id)
            WHERE b.state = 'running' GROUP BY b.batch_id
        ),
        today AS (
            SELECT coalesce(sum(
                coalesce(billed_usd, reserved_usd) + coalesce(possible_usd, 0)
            ), 0) AS usd
            FROM provider_jobs WHERE intended_at >= date_trunc('day', CAST($now AS TIMESTAMPTZ))
        )
        SELECT 'spend_cap_usd' AS "limit", max(usd / cap) AS value FROM used WHERE cap > 0
        HAVING count(*) > 0
        UNION ALL
        SELECT 'usd_per_batch', max(usd / CAST($usd_per_batch AS DOUBLE)) FROM used
        WHERE CAST($usd_per_batch AS DOUBLE) > 0 HAVING count(*) > 0
        UNION ALL
        SELECT 'usd_per_day', usd / CAST($usd_per_day AS DOUBLE) FROM today
        WHERE CAST($usd_per_day AS DOUBLE) > 0
        """,
        adds_up=False,
    ),
)

STORE_AVAILABLE = Metric(
    "cj_store_available",
    "gauge",
    "1; or 0 while another program holds the store, and then nothing else can be counted.",
    (),
    "SELECT 1 AS value",
    adds_up=False,
)
STORE_HELD = Metric(
    "cj_store_held",
    "gauge",
    "1 for each program that holds the store while a scrape waited for it in vain.",
    ("program", "pid"),
    "SELECT '' AS program, 0 AS pid, 0 AS value WHERE FALSE",
)
"""Who holds it cannot be asked of the store itself: `readings` looks at the file's lock."""

METRICS: tuple[Metric, ...] = (
    STORE_AVAILABLE,
    STORE_HELD,
    *_REQUESTS,
    *_JOBS,
    *_LIVE,
    *_WEBHOOKS,
    *_COMPARISONS,
    *_BATCHES,
    *_TRIALS,
    *_SENSORS,
    *_LIMITS,
    *_ONE_BATCH,
)
"""All of them, in the order they are printed."""

-- Rows are counted against the provider's own counts: what is missing is in doubt, not lost.
ALTER TABLE provider_jobs ADD COLUMN incomplete_since TIMESTAMPTZ;
ALTER TABLE provider_jobs ADD COLUMN n_in_doubt INTEGER;
ALTER TABLE attempts ADD COLUMN in_doubt_usd DOUBLE;
ALTER TABLE attempts ADD COLUMN usage_evidence VARCHAR;
ALTER TABLE attempts ADD COLUMN n_prompt_bytes BIGINT;
ALTER TABLE attempts ADD COLUMN answered_model VARCHAR;
ALTER TABLE attempts ADD COLUMN answered_fingerprint VARCHAR;
ALTER TABLE attempts ADD COLUMN service_tier VARCHAR;
ALTER TABLE batches ADD COLUMN late_rows_at TIMESTAMPTZ;

COMMENT ON COLUMN provider_jobs.incomplete_since IS 'when rows were first missing that the provider counts as done';
COMMENT ON COLUMN provider_jobs.n_in_doubt IS 'requests without a row that may have been paid for';
COMMENT ON COLUMN attempts.in_doubt_usd IS 'US dollars that may have been paid for this request although no row shows it; empty once a row came';
COMMENT ON COLUMN attempts.usage_evidence IS 'reported, not_reported or contradictory: what the answer says of its tokens; the last two are billed at the most';
COMMENT ON COLUMN attempts.n_prompt_bytes IS 'the size of the prompt in UTF-8 bytes';
COMMENT ON COLUMN attempts.answered_model IS 'the model, in the answer''s own word';
COMMENT ON COLUMN attempts.answered_fingerprint IS 'the system fingerprint, in the answer''s own word';
COMMENT ON COLUMN attempts.service_tier IS 'the service tier, in the answer''s own word';
COMMENT ON COLUMN batches.late_rows_at IS 'when verdicts came, or were requested again, after its end: earlier gradings are out of date';

CREATE OR REPLACE VIEW v_job_phases AS
SELECT
    submission_key, batch_id, wave, judge_id, batching_mode, provider, model, account, state,
    n_requests, n_bytes, content_sha256, input_file_id, provider_job_id, provider_status,
    outcome, output_file_id, error_file_id, n_completed, n_failed, error_code, error,
    reserved_usd, billed_usd, intended_at, submitted_at, ended_at, collected_at, polled_at,
    next_poll_at, n_polls, lease_owner, lease_until, is_canary, estimated_usd, possible_usd,
    provider_tokens_prompt, provider_tokens_cached, provider_tokens_completion, provider_usd,
    create_begun_at, counts_changed_at, results_expire_at, cancel_sent_at,
    cancel_sent_at AS cancel_told_at, n_poll_failures, waiting_for, incomplete_since, n_in_doubt,
    CASE
        WHEN state IN ('intent', 'uploaded', 'ambiguous') THEN 'unsent'
        WHEN state IN ('submitted', 'adopted', 'running')
            THEN CASE batching_mode WHEN 'provider_batch_api' THEN 'open' ELSE 'calling' END
        WHEN state IN ('ended', 'collected', 'incomplete') THEN 'collectable'
        ELSE 'done'
    END AS phase
FROM provider_jobs;

COMMENT ON VIEW v_job_phases IS 'One row per provider job with everything known of it and its phase; queries go by the phase, not by states.';
COMMENT ON COLUMN v_job_phases.phase IS 'unsent (not at the provider, as far as is known), calling (single calls are being made), open (at the provider), collectable (ended, not settled: rows may still be missing) or done';
COMMENT ON COLUMN v_job_phases.submission_key IS 'names the job before anything is sent';
COMMENT ON COLUMN v_job_phases.batch_id IS 'whose it is';
COMMENT ON COLUMN v_job_phases.wave IS 'the last wave whose requests it bears';
COMMENT ON COLUMN v_job_phases.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_job_phases.batching_mode IS 'single calls and serial bundles have no job at the provider';
COMMENT ON COLUMN v_job_phases.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_job_phases.model IS 'as the provider names it';
COMMENT ON COLUMN v_job_phases.account IS 'a fingerprint of the account it goes out from';
COMMENT ON COLUMN v_job_phases.state IS 'where it is';
COMMENT ON COLUMN v_job_phases.n_requests IS 'how many comparisons it asks for';
COMMENT ON COLUMN v_job_phases.n_bytes IS 'the size of its requests, in bytes';
COMMENT ON COLUMN v_job_phases.content_sha256 IS 'of its requests, once they are built';
COMMENT ON COLUMN v_job_phases.input_file_id IS 'the uploaded requests, for providers that have files';
COMMENT ON COLUMN v_job_phases.provider_job_id IS 'the provider''s id; None until it is known';
COMMENT ON COLUMN v_job_phases.provider_status IS 'in the provider''s own word';
COMMENT ON COLUMN v_job_phases.outcome IS 'how it ended; None before';
COMMENT ON COLUMN v_job_phases.output_file_id IS 'where answers are';
COMMENT ON COLUMN v_job_phases.error_file_id IS 'where failures are';
COMMENT ON COLUMN v_job_phases.n_completed IS 'requests answered, as the provider counts them';
COMMENT ON COLUMN v_job_phases.n_failed IS 'requests failed, likewise';
COMMENT ON COLUMN v_job_phases.error_code IS 'why the job as a whole failed, in the provider''s word';
COMMENT ON COLUMN v_job_phases.error IS 'what is waited for, or what went wrong, in words';
COMMENT ON COLUMN v_job_phases.reserved_usd IS 'the most it can cost';
COMMENT ON COLUMN v_job_phases.billed_usd IS 'by the usage of the rows that came; None until it is settled';
COMMENT ON COLUMN v_job_phases.intended_at IS 'when it was recorded';
COMMENT ON COLUMN v_job_phases.submitted_at IS 'when the provider took it';
COMMENT ON COLUMN v_job_phases.ended_at IS 'when it ended';
COMMENT ON COLUMN v_job_phases.collected_at IS 'when its rows were stored';
COMMENT ON COLUMN v_job_phases.polled_at IS 'when it was last polled';
COMMENT ON COLUMN v_job_phases.next_poll_at IS 'when it is polled, or sent again, at the earliest';
COMMENT ON COLUMN v_job_phases.n_polls IS 'how often it was polled';
COMMENT ON COLUMN v_job_phases.lease_owner IS 'the process that sends it, or was the last to try';
COMMENT ON COLUMN v_job_phases.lease_until IS 'until when nobody else may';
COMMENT ON COLUMN v_job_phases.is_canary IS 'whether it went ahead to see how a new judge answers';
COMMENT ON COLUMN v_job_phases.estimated_usd IS 'expected before it left';
COMMENT ON COLUMN v_job_phases.possible_usd IS 'what may have been paid for beyond the bill';
COMMENT ON COLUMN v_job_phases.provider_tokens_prompt IS 'input tokens by the provider''s own count of the whole job';
COMMENT ON COLUMN v_job_phases.provider_tokens_cached IS 'of these, read from a cache';
COMMENT ON COLUMN v_job_phases.provider_tokens_completion IS 'output tokens by that count';
COMMENT ON COLUMN v_job_phases.provider_usd IS 'what the provider''s own count comes to';
COMMENT ON COLUMN v_job_phases.create_begun_at IS 'since when the provider may have it; None where it surely has not';
COMMENT ON COLUMN v_job_phases.counts_changed_at IS 'when the provider last reported any progress';
COMMENT ON COLUMN v_job_phases.results_expire_at IS 'when the provider deletes its results';
COMMENT ON COLUMN v_job_phases.cancel_sent_at IS 'when the provider was asked to stop it';
COMMENT ON COLUMN v_job_phases.cancel_told_at IS 'the old name of cancel_sent_at; goes with the next release';
COMMENT ON COLUMN v_job_phases.n_poll_failures IS 'polls in a row without an answer';
COMMENT ON COLUMN v_job_phases.waiting_for IS 'the same in one word, where something other than the provider is waited for';
COMMENT ON COLUMN v_job_phases.incomplete_since IS 'when rows were first missing that the provider counts as done';
COMMENT ON COLUMN v_job_phases.n_in_doubt IS 'requests without a row that may have been paid for';

DROP VIEW v_provider_jobs;
CREATE VIEW v_provider_jobs AS
SELECT
    batch_id, wave, submission_key, provider, model, batching_mode, provider_job_id, state, phase,
    waiting_for, provider_status, outcome, n_requests, n_completed, n_failed, error, reserved_usd,
    billed_usd, intended_at, submitted_at, ended_at, collected_at, polled_at, next_poll_at,
    results_expire_at, incomplete_since, n_in_doubt
FROM v_job_phases
UNION ALL
SELECT
    d.batch_id, p.wave, d.submission_key, p.provider, p.model, p.batching_mode, d.provider_job_id,
    'duplicate' AS state, CASE d.state WHEN 'settled' THEN 'done' ELSE 'open' END AS phase,
    NULL AS waiting_for, d.provider_status, d.outcome, p.n_requests, d.n_paid AS n_completed,
    NULL AS n_failed, d.error, 0 AS reserved_usd, d.billed_usd, d.found_at AS intended_at,
    NULL AS submitted_at, NULL AS ended_at, d.settled_at AS collected_at, NULL AS polled_at,
    d.next_poll_at, NULL AS results_expire_at, NULL AS incomplete_since,
    NULL AS n_in_doubt
FROM duplicate_jobs d
LEFT JOIN provider_jobs p ON p.submission_key = d.submission_key;

COMMENT ON VIEW v_provider_jobs IS 'One row per provider job, duplicates included: where it stands, and why.';
COMMENT ON COLUMN v_provider_jobs.state IS 'intent, uploaded, submitted, ambiguous (it may exist), adopted (found again), running, ended, collected (rows stored), incomplete (rows are missing that the provider counts as done), settled (read and billed), refused, or duplicate (cancelled, not used)';
COMMENT ON COLUMN v_provider_jobs.phase IS 'unsent, calling (single calls are being made), open (at the provider), collectable (ended, not settled) or done';
COMMENT ON COLUMN v_provider_jobs.waiting_for IS 'what has to come before it goes on: key, credit, person, rows or room; empty where only the provider is waited for';
COMMENT ON COLUMN v_provider_jobs.provider_status IS 'in the provider''s own word';
COMMENT ON COLUMN v_provider_jobs.error IS 'what is waited for, or what went wrong, in words';
COMMENT ON COLUMN v_provider_jobs.results_expire_at IS 'when the provider deletes its results';
COMMENT ON COLUMN v_provider_jobs.incomplete_since IS 'when rows were first missing that the provider counts as done';
COMMENT ON COLUMN v_provider_jobs.n_in_doubt IS 'requests without a row that may have been paid for';

CREATE OR REPLACE VIEW v_row_outcomes AS
SELECT
    p.batch_id, p.wave, p.submission_key, p.state, p.n_requests AS requested,
    count(*) FILTER (a.outcome = 'succeeded') AS succeeded,
    count(*) FILTER (a.outcome = 'invalid_output') AS invalid_output,
    count(*) FILTER (a.outcome = 'refusal') AS refusal,
    count(*) FILTER (a.outcome = 'truncated') AS truncated,
    count(*) FILTER (a.outcome = 'content_filter') AS content_filter,
    count(*) FILTER (a.outcome = 'prompt_cut') AS prompt_cut,
    count(*) FILTER (a.outcome = 'provider_error') AS provider_error,
    count(*) FILTER (a.outcome = 'expired') AS expired,
    count(*) FILTER (a.outcome = 'cancelled') AS cancelled,
    count(*) FILTER (a.outcome = 'missing') AS missing,
    p.n_requests - count(a.outcome) AS open
FROM provider_jobs p
LEFT JOIN attempts a USING (batch_id, submission_key)
GROUP BY p.batch_id, p.wave, p.submission_key, p.state, p.n_requests;

COMMENT ON VIEW v_row_outcomes IS 'One row per provider job: what became of every request; the kinds and the open ones add up to those requested.';
COMMENT ON COLUMN v_row_outcomes.requested IS 'requests the job was meant to carry';
COMMENT ON COLUMN v_row_outcomes.prompt_cut IS 'the judge was shown less than was sent: no verdict counts';
COMMENT ON COLUMN v_row_outcomes.missing IS 'the job ended, and no reply to the request came';
COMMENT ON COLUMN v_row_outcomes.open IS 'not collected yet; 0 once the job is settled';

CREATE OR REPLACE VIEW v_costs AS
SELECT
    p.batch_id, p.wave, p.submission_key, j.name AS judge, p.judge_id, p.provider, p.model,
    p.batching_mode, p.is_canary, p.state, p.provider_job_id, p.n_requests,
    p.estimated_usd, p.reserved_usd, p.billed_usd, p.possible_usd, p.provider_usd,
    p.provider_usd - p.billed_usd AS difference_usd,
    p.provider_usd - greatest(
        p.billed_usd, least(p.provider_usd, p.billed_usd + coalesce(a.in_doubt_usd, 0))
    ) AS unexplained_usd,
    a.n_without_usage, a.n_without_usage AS n_usage_not_told, a.n_usage_contradictory, a.n_in_doubt,
    a.tokens_prompt, a.tokens_cached, a.tokens_completion,
    p.provider_tokens_prompt, p.provider_tokens_cached, p.provider_tokens_completion,
    p.intended_at, p.collected_at
FROM provider_jobs p
LEFT JOIN judges j USING (batch_id, judge_id)
LEFT JOIN (
    SELECT
        batch_id, submission_key,
        sum(tokens_prompt) AS tokens_prompt,
        sum(tokens_cached) AS tokens_cached,
        sum(tokens_completion) AS tokens_completion,
        sum(in_doubt_usd) AS in_doubt_usd,
        count(in_doubt_usd) AS n_in_doubt,
        count(*) FILTER (NOT has_usage) AS n_without_usage,
        count(*) FILTER (usage_evidence = 'contradictory') AS n_usage_contradictory
    FROM attempts GROUP BY batch_id, submission_key
) a USING (batch_id, submission_key);

COMMENT ON VIEW v_costs IS 'One row per provider job: estimated, reserved and billed side by side, and what the provider counted itself.';
COMMENT ON COLUMN v_costs.is_canary IS 'a few requests sent ahead to see whether a new judge answers as asked';
COMMENT ON COLUMN v_costs.estimated_usd IS 'US dollars; expected before it left, by the length of the prompts';
COMMENT ON COLUMN v_costs.reserved_usd IS 'US dollars; the worst case, reserved before submission';
COMMENT ON COLUMN v_costs.billed_usd IS 'US dollars, from real usage; empty until rows were collected';
COMMENT ON COLUMN v_costs.possible_usd IS 'US dollars beyond the bill that may have been spent: rows and calls in doubt, or usage the provider counts and no row shows';
COMMENT ON COLUMN v_costs.provider_usd IS 'US dollars; the provider''s own count of the whole job at our prices, where it tells one';
COMMENT ON COLUMN v_costs.difference_usd IS 'US dollars; the provider''s own count less the bill: not 0 means that rows and count disagree';
COMMENT ON COLUMN v_costs.unexplained_usd IS 'US dollars; of that difference what rows in doubt do not explain; empty where the provider tells no count';
COMMENT ON COLUMN v_costs.n_without_usage IS 'answers that came without their tokens, billed at the most they can cost';
COMMENT ON COLUMN v_costs.n_usage_not_told IS 'the old name of n_without_usage; goes with the next release';
COMMENT ON COLUMN v_costs.n_usage_contradictory IS 'answers that contradict themselves about their tokens, billed at the most they can cost';
COMMENT ON COLUMN v_costs.n_in_doubt IS 'requests without a row that may have been paid for';
COMMENT ON COLUMN v_costs.tokens_cached IS 'prompt tokens that the provider had cached';

CREATE OR REPLACE VIEW v_judge_costs AS
SELECT
    batch_id, judge_id, any_value(judge) AS judge, any_value(provider) AS provider,
    any_value(model) AS model,
    count(*) AS n_jobs, sum(n_requests) AS n_requests,
    sum(estimated_usd) AS estimated_usd,
    sum(reserved_usd) AS reserved_usd,
    coalesce(sum(reserved_usd) FILTER (billed_usd IS NULL), 0) AS still_reserved_usd,
    coalesce(sum(billed_usd), 0) AS billed_usd,
    coalesce(sum(possible_usd), 0) AS possible_usd,
    sum(provider_usd) AS provider_usd,
    sum(difference_usd) AS difference_usd,
    sum(unexplained_usd) AS unexplained_usd
FROM v_costs
GROUP BY batch_id, judge_id;

COMMENT ON VIEW v_judge_costs IS 'One row per batch and judge: estimated, reserved and billed side by side.';
COMMENT ON COLUMN v_judge_costs.still_reserved_usd IS 'US dollars reserved for jobs of which no row was collected';
COMMENT ON COLUMN v_judge_costs.provider_usd IS 'US dollars; the providers'' own counts of those jobs that tell one';
COMMENT ON COLUMN v_judge_costs.difference_usd IS 'US dollars; those counts less the bills of the same jobs';
COMMENT ON COLUMN v_judge_costs.unexplained_usd IS 'US dollars; of that difference what rows in doubt do not explain';

CREATE OR REPLACE VIEW v_batch_costs AS
SELECT
    batch_id, sum(n_jobs) AS n_jobs, sum(n_requests) AS n_requests,
    sum(estimated_usd) AS estimated_usd,
    sum(reserved_usd) AS reserved_usd,
    sum(still_reserved_usd) AS still_reserved_usd,
    sum(billed_usd) AS billed_usd,
    sum(possible_usd) AS possible_usd,
    sum(provider_usd) AS provider_usd,
    sum(difference_usd) AS difference_usd,
    sum(unexplained_usd) AS unexplained_usd
FROM v_judge_costs
GROUP BY batch_id;

COMMENT ON VIEW v_batch_costs IS 'One row per batch: estimated, reserved and billed side by side.';
COMMENT ON COLUMN v_batch_costs.still_reserved_usd IS 'US dollars reserved for jobs of which no row was collected';
COMMENT ON COLUMN v_batch_costs.possible_usd IS 'US dollars beyond the bill that may have been spent';
COMMENT ON COLUMN v_batch_costs.unexplained_usd IS 'US dollars that providers count and neither rows nor rows in doubt explain';

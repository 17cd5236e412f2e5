-- One word for what a provider job waits for, and one column that says how far it is.
ALTER TABLE provider_jobs ADD COLUMN waiting_for VARCHAR;
COMMENT ON COLUMN provider_jobs.waiting_for IS 'what has to come before it goes on: key, credit, person, rows or room; empty where only the provider is waited for';

CREATE VIEW v_job_phases AS
SELECT
    submission_key, batch_id, wave, judge_id, batching_mode, provider, model, account, state,
    n_requests, n_bytes, content_sha256, input_file_id, provider_job_id, provider_status,
    outcome, output_file_id, error_file_id, n_completed, n_failed, error_code, error,
    reserved_usd, billed_usd, intended_at, submitted_at, ended_at, collected_at, polled_at,
    next_poll_at, n_polls, lease_owner, lease_until, is_canary, estimated_usd, possible_usd,
    provider_tokens_prompt, provider_tokens_cached, provider_tokens_completion, provider_usd,
    create_begun_at, counts_changed_at, results_expire_at, cancel_told_at, n_poll_failures,
    waiting_for,
    CASE
        WHEN state IN ('intent', 'uploaded', 'ambiguous') THEN 'unsent'
        WHEN state IN ('submitted', 'adopted', 'running')
            THEN CASE batching_mode WHEN 'provider_batch_api' THEN 'open' ELSE 'calling' END
        WHEN state IN ('ended', 'collected') THEN 'collectable'
        ELSE 'done'
    END AS phase
FROM provider_jobs;

COMMENT ON VIEW v_job_phases IS 'One row per provider job with everything known of it and its phase; queries go by the phase, not by states.';
COMMENT ON COLUMN v_job_phases.phase IS 'unsent (not at the provider, as far as is known), calling (single calls are being made), open (at the provider), collectable (ended, not settled) or done';
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
COMMENT ON COLUMN v_job_phases.cancel_told_at IS 'when the provider was asked to stop it';
COMMENT ON COLUMN v_job_phases.n_poll_failures IS 'polls in a row without an answer';
COMMENT ON COLUMN v_job_phases.waiting_for IS 'the same in one word, where something other than the provider is waited for';

DROP VIEW v_provider_jobs;
CREATE VIEW v_provider_jobs AS
SELECT
    batch_id, wave, submission_key, provider, model, batching_mode, provider_job_id, state, phase,
    waiting_for, provider_status, outcome, n_requests, n_completed, n_failed, error, reserved_usd,
    billed_usd, intended_at, submitted_at, ended_at, collected_at, polled_at, next_poll_at,
    results_expire_at
FROM v_job_phases
UNION ALL
SELECT
    d.batch_id, p.wave, d.submission_key, p.provider, p.model, p.batching_mode, d.provider_job_id,
    'duplicate' AS state, CASE d.state WHEN 'settled' THEN 'done' ELSE 'open' END AS phase,
    NULL AS waiting_for, d.provider_status, d.outcome, p.n_requests, d.n_paid AS n_completed,
    NULL AS n_failed, d.error, 0 AS reserved_usd, d.billed_usd, d.found_at AS intended_at,
    NULL AS submitted_at, NULL AS ended_at, d.settled_at AS collected_at, NULL AS polled_at,
    d.next_poll_at, NULL AS results_expire_at
FROM duplicate_jobs d
LEFT JOIN provider_jobs p ON p.submission_key = d.submission_key;

COMMENT ON VIEW v_provider_jobs IS 'One row per provider job, duplicates included: where it stands, and why.';
COMMENT ON COLUMN v_provider_jobs.state IS 'intent, uploaded, submitted, ambiguous (it may exist), adopted (found again), running, ended, collected (rows stored), settled (read and billed), refused, or duplicate (cancelled, not used)';
COMMENT ON COLUMN v_provider_jobs.phase IS 'unsent, calling (single calls are being made), open (at the provider), collectable (ended, not settled) or done';
COMMENT ON COLUMN v_provider_jobs.waiting_for IS 'what has to come before it goes on: key, credit, person, rows or room; empty where only the provider is waited for';
COMMENT ON COLUMN v_provider_jobs.provider_status IS 'in the provider''s own word';
COMMENT ON COLUMN v_provider_jobs.error IS 'what is waited for, or what went wrong, in words';
COMMENT ON COLUMN v_provider_jobs.results_expire_at IS 'when the provider deletes its results';

-- Whatever else may keep a batch waiting joins this view as further rows of `waits`.
CREATE VIEW v_batch_waiting AS
WITH words AS (
    SELECT unnest(['key', 'credit', 'person', 'rows', 'room']) AS waiting_for,
           unnest([1, 2, 3, 4, 5]) AS urgency
),
waits AS (
    SELECT batch_id, waiting_for, error AS reason, next_poll_at AS until
    FROM v_job_phases WHERE waiting_for IS NOT NULL AND phase <> 'done'
)
SELECT batch_id, arg_min(waiting_for, urgency) AS waiting_for, arg_min(reason, urgency) AS reason,
       count(*) AS n_waits, min(until) AS next_try_at
FROM waits JOIN words USING (waiting_for)
GROUP BY batch_id;

COMMENT ON VIEW v_batch_waiting IS 'One row per batch that waits for something beside a provider''s own work.';
COMMENT ON COLUMN v_batch_waiting.batch_id IS 'the batch';
COMMENT ON COLUMN v_batch_waiting.waiting_for IS 'the most urgent of key, credit, person, rows and room';
COMMENT ON COLUMN v_batch_waiting.reason IS 'the same in words';
COMMENT ON COLUMN v_batch_waiting.n_waits IS 'how many of its jobs wait';
COMMENT ON COLUMN v_batch_waiting.next_try_at IS 'when the first of them is tried again';

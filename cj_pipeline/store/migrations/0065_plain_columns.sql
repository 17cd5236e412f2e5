-- Three columns get the words everybody uses. The views show the old names beside the new ones for
-- one release, so that saved queries go on working.
ALTER TABLE attempts RENAME COLUMN is_usage_told TO has_usage;
ALTER TABLE provider_jobs RENAME COLUMN cancel_told_at TO cancel_sent_at;
ALTER TABLE duplicate_jobs RENAME COLUMN cancel_told_at TO cancel_sent_at;

COMMENT ON COLUMN attempts.has_usage IS 'whether the reply stated its tokens; an answer that did not is billed at the most it can cost';
COMMENT ON COLUMN provider_jobs.cancel_sent_at IS 'when the provider was asked to stop it';

DROP VIEW v_costs;
CREATE VIEW v_costs AS
SELECT
    p.batch_id, p.wave, p.submission_key, j.name AS judge, p.judge_id, p.provider, p.model,
    p.batching_mode, p.is_canary, p.state, p.provider_job_id, p.n_requests,
    p.estimated_usd, p.reserved_usd, p.billed_usd, p.possible_usd, p.provider_usd,
    p.provider_usd - p.billed_usd AS difference_usd,
    a.n_without_usage, a.n_without_usage AS n_usage_not_told, a.tokens_prompt, a.tokens_cached, a.tokens_completion,
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
        count(*) FILTER (NOT has_usage) AS n_without_usage
    FROM attempts GROUP BY batch_id, submission_key
) a USING (batch_id, submission_key);

COMMENT ON VIEW v_costs IS 'One row per provider job: estimated, reserved and billed side by side, and what the provider counted itself.';
COMMENT ON COLUMN v_costs.is_canary IS 'a few requests sent ahead to see whether a new judge answers as asked';
COMMENT ON COLUMN v_costs.estimated_usd IS 'US dollars; expected before it left, by the length of the prompts';
COMMENT ON COLUMN v_costs.reserved_usd IS 'US dollars; the worst case, reserved before submission';
COMMENT ON COLUMN v_costs.billed_usd IS 'US dollars, from real usage; empty until the job is settled';
COMMENT ON COLUMN v_costs.possible_usd IS 'US dollars beyond the bill that may have been spent: calls in doubt, or usage the provider counts and no row shows';
COMMENT ON COLUMN v_costs.provider_usd IS 'US dollars; the provider''s own count of the whole job at our prices, where it tells one';
COMMENT ON COLUMN v_costs.difference_usd IS 'US dollars; the provider''s own count less the bill: not 0 means that rows and count disagree';
COMMENT ON COLUMN v_costs.n_without_usage IS 'answers that came without their tokens, billed at the most they can cost';
COMMENT ON COLUMN v_costs.n_usage_not_told IS 'the old name of n_without_usage; goes with the next release';
COMMENT ON COLUMN v_costs.tokens_cached IS 'prompt tokens that the provider had cached';

DROP VIEW v_job_phases;
CREATE VIEW v_job_phases AS
SELECT
    submission_key, batch_id, wave, judge_id, batching_mode, provider, model, account, state,
    n_requests, n_bytes, content_sha256, input_file_id, provider_job_id, provider_status,
    outcome, output_file_id, error_file_id, n_completed, n_failed, error_code, error,
    reserved_usd, billed_usd, intended_at, submitted_at, ended_at, collected_at, polled_at,
    next_poll_at, n_polls, lease_owner, lease_until, is_canary, estimated_usd, possible_usd,
    provider_tokens_prompt, provider_tokens_cached, provider_tokens_completion, provider_usd,
    create_begun_at, counts_changed_at, results_expire_at, cancel_sent_at,
    cancel_sent_at AS cancel_told_at, n_poll_failures, waiting_for,
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
COMMENT ON COLUMN v_job_phases.cancel_sent_at IS 'when the provider was asked to stop it';
COMMENT ON COLUMN v_job_phases.cancel_told_at IS 'the old name of cancel_sent_at; goes with the next release';
COMMENT ON COLUMN v_job_phases.n_poll_failures IS 'polls in a row without an answer';
COMMENT ON COLUMN v_job_phases.waiting_for IS 'the same in one word, where something other than the provider is waited for';

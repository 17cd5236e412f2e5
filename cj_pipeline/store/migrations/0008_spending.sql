-- Money side by side: estimated, reserved, billed, what may have been billed besides, and what the
-- provider's own count of a job comes to.
ALTER TABLE attempts ADD COLUMN reserved_usd DOUBLE;
ALTER TABLE attempts ADD COLUMN is_usage_told BOOLEAN;
ALTER TABLE provider_jobs ADD COLUMN is_canary BOOLEAN;
ALTER TABLE provider_jobs ADD COLUMN estimated_usd DOUBLE;
ALTER TABLE provider_jobs ADD COLUMN possible_usd DOUBLE;
ALTER TABLE provider_jobs ADD COLUMN provider_tokens_prompt BIGINT;
ALTER TABLE provider_jobs ADD COLUMN provider_tokens_cached BIGINT;
ALTER TABLE provider_jobs ADD COLUMN provider_tokens_completion BIGINT;
ALTER TABLE provider_jobs ADD COLUMN provider_usd DOUBLE;

COMMENT ON COLUMN attempts.reserved_usd IS 'US dollars; the most this request can cost';
COMMENT ON COLUMN attempts.is_usage_told IS 'whether the reply told its tokens; an answer that did not is billed at the most it can cost';
COMMENT ON COLUMN provider_jobs.is_canary IS 'a few requests sent ahead to see whether a new judge answers as asked';
COMMENT ON COLUMN provider_jobs.estimated_usd IS 'US dollars; expected before it left, by the length of the prompts';
COMMENT ON COLUMN provider_jobs.possible_usd IS 'US dollars beyond the bill that may have been spent: calls in doubt, or usage the provider counts and no row shows';
COMMENT ON COLUMN provider_jobs.provider_tokens_prompt IS 'input tokens of the whole job as the provider counts them; empty where it does not tell';
COMMENT ON COLUMN provider_jobs.provider_tokens_cached IS 'of these read from a cache';
COMMENT ON COLUMN provider_jobs.provider_tokens_completion IS 'output tokens of the whole job as the provider counts them';
COMMENT ON COLUMN provider_jobs.provider_usd IS 'US dollars; what the provider''s own count comes to at our prices';

DROP VIEW v_costs;
CREATE VIEW v_costs AS
SELECT
    p.batch_id, p.wave, p.submission_key, j.name AS judge, p.judge_id, p.provider, p.model,
    p.batching_mode, p.is_canary, p.state, p.provider_job_id, p.n_requests,
    p.estimated_usd, p.reserved_usd, p.billed_usd, p.possible_usd, p.provider_usd,
    p.provider_usd - p.billed_usd AS difference_usd,
    a.n_usage_not_told, a.tokens_prompt, a.tokens_cached, a.tokens_completion,
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
        count(*) FILTER (NOT is_usage_told) AS n_usage_not_told
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
COMMENT ON COLUMN v_costs.n_usage_not_told IS 'answers that came without their tokens, billed at the most they can cost';
COMMENT ON COLUMN v_costs.tokens_cached IS 'prompt tokens that the provider had cached';

CREATE VIEW v_judge_costs AS
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
    sum(difference_usd) AS difference_usd
FROM v_costs
GROUP BY batch_id, judge_id;

COMMENT ON VIEW v_judge_costs IS 'One row per batch and judge: estimated, reserved and billed side by side.';
COMMENT ON COLUMN v_judge_costs.still_reserved_usd IS 'US dollars reserved for jobs that are not settled';
COMMENT ON COLUMN v_judge_costs.provider_usd IS 'US dollars; the providers'' own counts of those jobs that tell one';
COMMENT ON COLUMN v_judge_costs.difference_usd IS 'US dollars; those counts less the bills of the same jobs';

CREATE VIEW v_batch_costs AS
SELECT
    batch_id, sum(n_jobs) AS n_jobs, sum(n_requests) AS n_requests,
    sum(estimated_usd) AS estimated_usd,
    sum(reserved_usd) AS reserved_usd,
    sum(still_reserved_usd) AS still_reserved_usd,
    sum(billed_usd) AS billed_usd,
    sum(possible_usd) AS possible_usd,
    sum(provider_usd) AS provider_usd,
    sum(difference_usd) AS difference_usd
FROM v_judge_costs
GROUP BY batch_id;

COMMENT ON VIEW v_batch_costs IS 'One row per batch: estimated, reserved and billed side by side.';
COMMENT ON COLUMN v_batch_costs.still_reserved_usd IS 'US dollars reserved for jobs that are not settled';
COMMENT ON COLUMN v_batch_costs.possible_usd IS 'US dollars beyond the bill that may have been spent';

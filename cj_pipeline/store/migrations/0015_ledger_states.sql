-- What a person wants to know of a provider job in doubt, late or found twice.
ALTER TABLE provider_jobs ADD COLUMN create_begun_at TIMESTAMPTZ;
ALTER TABLE provider_jobs ADD COLUMN counts_changed_at TIMESTAMPTZ;
ALTER TABLE provider_jobs ADD COLUMN results_expire_at TIMESTAMPTZ;
ALTER TABLE provider_jobs ADD COLUMN cancel_told_at TIMESTAMPTZ;
ALTER TABLE provider_jobs ADD COLUMN n_poll_failures INTEGER DEFAULT 0;

-- From now on a create that may be under way says since when; earlier ones did not.
UPDATE provider_jobs SET create_begun_at = coalesce(polled_at, intended_at)
WHERE state IN ('uploaded', 'ambiguous');

COMMENT ON COLUMN provider_jobs.create_begun_at IS 'since when the provider may have created it; empty where it surely has not';
COMMENT ON COLUMN provider_jobs.counts_changed_at IS 'when the provider last told of any progress';
COMMENT ON COLUMN provider_jobs.results_expire_at IS 'when the provider deletes its results';
COMMENT ON COLUMN provider_jobs.cancel_told_at IS 'when the provider was told to stop it';
COMMENT ON COLUMN provider_jobs.n_poll_failures IS 'looks in a row that got no answer';

-- Jobs a provider made of one submission beyond the one that is kept: cancelled, and paid for.
CREATE TABLE duplicate_jobs (
    provider_job_id     VARCHAR NOT NULL,
    account             VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,
    submission_key      VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    state               VARCHAR NOT NULL,  -- duplicate | settled
    provider_status     VARCHAR,
    outcome             VARCHAR,
    n_paid              INTEGER,           -- answers in it that were paid for, and not used
    billed_usd          DOUBLE,
    error               VARCHAR,
    found_at            TIMESTAMPTZ NOT NULL,
    cancel_told_at      TIMESTAMPTZ,
    next_poll_at        TIMESTAMPTZ,
    settled_at          TIMESTAMPTZ,
    PRIMARY KEY (account, provider_job_id)
);

-- What a request counted as before its stored callback was read anew: nothing is overwritten.
CREATE TABLE earlier_outcomes (
    batch_id            VARCHAR NOT NULL,
    comparison_id       VARCHAR NOT NULL,
    attempt             INTEGER NOT NULL,
    revision            INTEGER NOT NULL,  -- counts from 1; the first is the oldest
    attempt_row         JSON NOT NULL,     -- the row of `attempts` as it was
    comparison_row      JSON,              -- the row of `comparisons`, if it changed with it
    replaced_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (comparison_id, attempt, revision)
);

CREATE VIEW v_provider_jobs AS
SELECT
    batch_id, wave, submission_key, provider, model, batching_mode, provider_job_id, state,
    provider_status, outcome, n_requests, n_completed, n_failed, error, reserved_usd, billed_usd,
    intended_at, submitted_at, ended_at, collected_at, polled_at, next_poll_at, results_expire_at
FROM provider_jobs
UNION ALL
SELECT
    d.batch_id, p.wave, d.submission_key, p.provider, p.model, p.batching_mode, d.provider_job_id,
    'duplicate' AS state, d.provider_status, d.outcome, p.n_requests, d.n_paid AS n_completed,
    NULL AS n_failed, d.error, 0 AS reserved_usd, d.billed_usd, d.found_at AS intended_at,
    NULL AS submitted_at, NULL AS ended_at, d.settled_at AS collected_at, NULL AS polled_at,
    d.next_poll_at, NULL AS results_expire_at
FROM duplicate_jobs d
LEFT JOIN provider_jobs p ON p.submission_key = d.submission_key;

COMMENT ON VIEW v_provider_jobs IS 'One row per provider job, duplicates included: where it stands, and why.';
COMMENT ON COLUMN v_provider_jobs.state IS 'intent, uploaded, submitted, ambiguous (it may exist), adopted (found again), running, ended, collected (rows stored), settled (read and billed), refused, or duplicate (cancelled, not used)';
COMMENT ON COLUMN v_provider_jobs.provider_status IS 'in the provider''s own word';
COMMENT ON COLUMN v_provider_jobs.error IS 'what is waited for, or what went wrong, in words';
COMMENT ON COLUMN v_provider_jobs.results_expire_at IS 'when the provider deletes its results';

CREATE VIEW v_row_outcomes AS
SELECT
    p.batch_id, p.wave, p.submission_key, p.state, p.n_requests AS requested,
    count(*) FILTER (a.outcome = 'succeeded') AS succeeded,
    count(*) FILTER (a.outcome = 'invalid_output') AS invalid_output,
    count(*) FILTER (a.outcome = 'refusal') AS refusal,
    count(*) FILTER (a.outcome = 'truncated') AS truncated,
    count(*) FILTER (a.outcome = 'content_filter') AS content_filter,
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
COMMENT ON COLUMN v_row_outcomes.missing IS 'the job ended, and no reply to the request came';
COMMENT ON COLUMN v_row_outcomes.open IS 'not collected yet; 0 once the job is settled';

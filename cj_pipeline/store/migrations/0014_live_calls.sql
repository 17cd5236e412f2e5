-- How single calls went, and what keeps others waiting.

CREATE TABLE live_calls (
    submission_key      VARCHAR NOT NULL,
    line                INTEGER NOT NULL,
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    custom_id           VARCHAR NOT NULL,
    outcome             VARCHAR NOT NULL,  -- answered | failed | expired
    n_tries             INTEGER NOT NULL,
    queued_at           TIMESTAMPTZ NOT NULL,
    sent_at             TIMESTAMPTZ,       -- of the last try; null where there was none
    answered_at         TIMESTAMPTZ NOT NULL,
    wait_s              DOUBLE,            -- from standing ready until the last try began
    latency_s           DOUBLE,            -- of the last try
    PRIMARY KEY (submission_key, line)
);

CREATE TABLE circuit_breakers (
    lane                VARCHAR PRIMARY KEY,
    account             VARCHAR NOT NULL,
    provider            VARCHAR NOT NULL,
    model               VARCHAR NOT NULL,
    state               VARCHAR NOT NULL,  -- closed | open | half-open
    n_failures          INTEGER NOT NULL,  -- in a row
    n_trips             INTEGER NOT NULL,  -- in a row, without an answer in between
    open_until          TIMESTAMPTZ,       -- when the next probe may go
    last_error          VARCHAR,
    changed_at          TIMESTAMPTZ NOT NULL
);

CREATE VIEW v_live_queue AS
SELECT
    j.batch_id,
    coalesce(b.settings->>'priority', 'normal') AS priority,
    j.judge_id, j.provider, j.model, j.batching_mode,
    count(*) FILTER (c.custom_id IS NULL) AS n_waiting,
    count(c.custom_id) AS n_answered,
    min(a.requested_at) FILTER (c.custom_id IS NULL) AS waiting_since,
    min(j.intended_at) FILTER (c.custom_id IS NULL)
        + to_seconds(CAST(b.metadata->'profile'->'values'->>'result_ttl_seconds' AS DOUBLE))
        AS expires_at,
    max(j.next_poll_at) AS put_off_until,
    bool_or(j.lease_owner IS NOT NULL) AS is_held,
    avg(l.wait_s) AS mean_wait_s,
    max(l.wait_s) AS longest_wait_s,
    avg(l.latency_s) AS mean_latency_s,
    any_value(k.state) AS breaker_state,
    any_value(k.open_until) AS breaker_open_until
FROM provider_jobs j
JOIN batches b USING (batch_id)
JOIN attempts a USING (submission_key)
LEFT JOIN callbacks c ON c.submission_key = j.submission_key AND c.custom_id = a.custom_id
LEFT JOIN live_calls l ON l.submission_key = j.submission_key AND l.custom_id = a.custom_id
LEFT JOIN circuit_breakers k ON k.account = j.account AND k.model = j.model
WHERE j.batching_mode <> 'provider_batch_api' AND j.state IN ('intent', 'running')
GROUP BY j.batch_id, b.settings, b.metadata, j.judge_id, j.provider, j.model, j.batching_mode;

COMMENT ON VIEW v_live_queue IS 'Single calls that are waiting, per batch and judge: how many, since when, what holds them up.';
COMMENT ON COLUMN v_live_queue.priority IS 'of the batch: low, normal or high; waiting raises it';
COMMENT ON COLUMN v_live_queue.n_waiting IS 'calls without a reply in the store; some may be on their way';
COMMENT ON COLUMN v_live_queue.n_answered IS 'calls of the same jobs that have one';
COMMENT ON COLUMN v_live_queue.waiting_since IS 'when the oldest of those that wait was recorded';
COMMENT ON COLUMN v_live_queue.expires_at IS 'when the first of them is no longer worth sending; empty without result_ttl_seconds';
COMMENT ON COLUMN v_live_queue.put_off_until IS 'when the calls are taken up again, where they were put off';
COMMENT ON COLUMN v_live_queue.is_held IS 'whether a process is making these calls, or was when it died';
COMMENT ON COLUMN v_live_queue.mean_wait_s IS 'seconds from standing ready until sent, over those answered';
COMMENT ON COLUMN v_live_queue.breaker_state IS 'closed, open or half-open; empty before the first failure';

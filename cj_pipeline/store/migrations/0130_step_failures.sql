-- What keeps failing before anything can be sent: until now only a run's log knew of it.
CREATE TABLE step_failures (
    batch_id        VARCHAR NOT NULL PRIMARY KEY,
    step            VARCHAR NOT NULL,
    reason          VARCHAR NOT NULL,
    n_failures      INTEGER NOT NULL,
    first_failed_at TIMESTAMPTZ NOT NULL,
    last_failed_at  TIMESTAMPTZ NOT NULL
);

COMMENT ON TABLE step_failures IS 'One row per batch whose last step failed; the row goes when that step succeeds.';
COMMENT ON COLUMN step_failures.batch_id IS 'the batch';
COMMENT ON COLUMN step_failures.step IS 'the step that failed, by the name of its asset or function';
COMMENT ON COLUMN step_failures.reason IS 'what the step said, in words';
COMMENT ON COLUMN step_failures.n_failures IS 'how many times in a row it failed with this reason';
COMMENT ON COLUMN step_failures.first_failed_at IS 'the first of these times';
COMMENT ON COLUMN step_failures.last_failed_at IS 'the latest of these times';

DROP VIEW v_batch_waiting;
CREATE VIEW v_batch_waiting AS
WITH words AS (
    SELECT unnest(['key', 'credit', 'person', 'rows', 'room', 'sign_off']) AS waiting_for,
           unnest([1, 2, 3, 4, 5, 6]) AS urgency
),
waits AS (
    SELECT batch_id, waiting_for, error AS reason, next_poll_at AS until
    FROM v_job_phases WHERE waiting_for IS NOT NULL AND phase <> 'done'
    UNION ALL
    SELECT batch_id, 'sign_off', 'its grades are ' || status || ': `cj moderate` and `cj release`',
           NULL
    FROM v_release
    WHERE release_rule = 'needs_sign_off' AND status NOT IN ('no grades', 'final', 'released')
    UNION ALL
    SELECT batch_id, waiting_for, reason, next_try_at FROM v_judge_holds
    UNION ALL
    SELECT f.batch_id, 'person', f.reason, NULL
    FROM step_failures f
    WHERE NOT EXISTS (FROM batch_report r WHERE r.batch_id = f.batch_id)
      -- What moved on since then has got over it.
      AND NOT EXISTS (FROM attempts a WHERE a.batch_id = f.batch_id
                      AND greatest(a.requested_at, a.completed_at) > f.last_failed_at)
    UNION ALL
    -- A batch that has ended may wait for a person's release of its grades.
    SELECT batch_id, 'sign_off', 'its grades are ' || status || ': `cj moderate` and `cj release`',
           NULL
    FROM v_release
    WHERE release_rule = 'needs_sign_off' AND status NOT IN ('no grades', 'final', 'released')
)
SELECT batch_id, arg_min(waiting_for, urgency) AS waiting_for, arg_min(reason, urgency) AS reason,
       count(*) AS n_waits, min(until) AS next_try_at
FROM waits JOIN words USING (waiting_for)
GROUP BY batch_id;

COMMENT ON VIEW v_batch_waiting IS 'One row per batch that waits for something beside a provider''s own work.';
COMMENT ON COLUMN v_batch_waiting.batch_id IS 'the batch';
COMMENT ON COLUMN v_batch_waiting.waiting_for IS 'the most urgent of key, credit, person, rows, room and sign_off';
COMMENT ON COLUMN v_batch_waiting.reason IS 'the same in words';
COMMENT ON COLUMN v_batch_waiting.n_waits IS 'how many of its jobs wait, and one more each where a step keeps failing and where grades are to be released';
COMMENT ON COLUMN v_batch_waiting.next_try_at IS 'when the first of them is tried again';

CREATE VIEW v_commonest_failures AS
SELECT batch_id, outcome, error_code, error_message, n_requests
FROM (
    SELECT batch_id, outcome, error_code, min(error_message) AS error_message,
           count(*) AS n_requests,
           row_number() OVER (
               PARTITION BY batch_id ORDER BY count(*) DESC, outcome, error_code
           ) AS place
    FROM attempts WHERE outcome <> 'succeeded' GROUP BY batch_id, outcome, error_code
)
WHERE place = 1;

COMMENT ON VIEW v_commonest_failures IS 'One row per batch with failed requests: the failure that most of them had.';
COMMENT ON COLUMN v_commonest_failures.batch_id IS 'the batch';
COMMENT ON COLUMN v_commonest_failures.outcome IS 'how these requests ended';
COMMENT ON COLUMN v_commonest_failures.error_code IS 'the provider''s own code for it, where it gave one';
COMMENT ON COLUMN v_commonest_failures.error_message IS 'in the words of the provider, or of what read the judge''s answer';
COMMENT ON COLUMN v_commonest_failures.n_requests IS 'how many requests ended so';

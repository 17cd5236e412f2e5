-- A batch that a provider put off was said to wait for a person.
CREATE OR REPLACE VIEW v_batch_waiting AS
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
      -- What the ledger tries again by itself, as when a provider asked for an hour, needs nobody.
      AND NOT EXISTS (FROM v_job_phases p
                      WHERE p.batch_id = f.batch_id AND p.phase IN ('unsent', 'calling')
                        AND p.waiting_for IS NULL AND p.error IS NOT NULL
                        AND p.next_poll_at > f.last_failed_at)
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

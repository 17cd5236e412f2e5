-- A batch whose wave waits for people's verdicts was said to wait for nothing; and grades to be
-- released were counted twice.
CREATE VIEW v_waits_for_people AS
WITH waiting AS (
    SELECT b.batch_id, b.spend_cap_reached OR b.canary_failed AS asks_no_more,
           (SELECT max(p.wave) FROM comparison_pairs p WHERE p.batch_id = b.batch_id) AS wave
    FROM batches b
    WHERE b.state = 'running' AND NOT b.cancel_requested
      AND (b.settings->'people'->>'wait') = 'true'
),
owed AS (
    SELECT batch_id, count(*) AS n_owed FROM v_judging_tasks
    WHERE n_verdicts = 0 AND part <> 'second' AND batch_id IN (SELECT batch_id FROM waiting)
    GROUP BY batch_id
)
SELECT w.batch_id, w.wave, o.n_owed
FROM waiting w JOIN owed o USING (batch_id)
-- Once nothing of the wave is out at a provider, and before it is decided what comes next.
WHERE NOT EXISTS (FROM wave_decisions d WHERE d.batch_id = w.batch_id AND d.wave = w.wave)
  AND NOT EXISTS (FROM v_job_phases j WHERE j.batch_id = w.batch_id AND j.phase <> 'done')
  AND NOT EXISTS (FROM attempts a WHERE a.batch_id = w.batch_id AND a.outcome IS NULL)
  AND (w.asks_no_more OR NOT EXISTS (
      SELECT 1 FROM comparison_pairs p
      ANTI JOIN comparisons c ON c.comparison_id = p.comparison_id
      ANTI JOIN v_judge_holds h ON h.batch_id = p.batch_id AND h.judge_id = p.judge_id
      WHERE p.batch_id = w.batch_id));

COMMENT ON VIEW v_waits_for_people IS 'One row per running batch whose wave is judged by its models and waits for the people who judge beside them.';
COMMENT ON COLUMN v_waits_for_people.batch_id IS 'the batch';
COMMENT ON COLUMN v_waits_for_people.wave IS 'its last wave';
COMMENT ON COLUMN v_waits_for_people.n_owed IS 'pairs that people have still to judge; a second person''s are not waited for';

CREATE OR REPLACE VIEW v_batch_waiting AS
WITH words AS (
    SELECT unnest(['key', 'credit', 'person', 'rows', 'room', 'sign_off']) AS waiting_for,
           unnest([1, 2, 3, 4, 5, 6]) AS urgency
),
waits AS (
    SELECT batch_id, waiting_for, error AS reason, next_poll_at AS until
    FROM v_job_phases WHERE waiting_for IS NOT NULL AND phase <> 'done'
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
    -- The reason bears no count: whoever is told of it is told once a wave, not at each verdict.
    SELECT batch_id, 'person',
           'people have pairs of wave ' || wave || ' to judge: `cj people show ' || batch_id || '`',
           NULL
    FROM v_waits_for_people
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
COMMENT ON COLUMN v_batch_waiting.n_waits IS 'how many of its jobs wait, and one more each where a step keeps failing, where people have to judge and where grades are to be released';
COMMENT ON COLUMN v_batch_waiting.next_try_at IS 'when the first of them is tried again';

-- A judge of a batch whose calls are held: nothing more is bought of it until somebody has acted.
CREATE TABLE judge_holds (
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    waiting_for         VARCHAR NOT NULL,    -- credit or person
    reason              VARCHAR NOT NULL,
    sample              VARCHAR,
    n_answers           BIGINT NOT NULL,
    held_at             TIMESTAMPTZ NOT NULL,
    next_try_at         TIMESTAMPTZ,
    released_at         TIMESTAMPTZ,
    PRIMARY KEY (batch_id, judge_id)
);
COMMENT ON TABLE judge_holds IS 'One row per judge of a batch whose calls are held, or were: it gave no verdict, or its account ran out of credit.';
COMMENT ON COLUMN judge_holds.waiting_for IS 'credit, or person: a decision about a judge that gives no verdict';
COMMENT ON COLUMN judge_holds.reason IS 'in words';
COMMENT ON COLUMN judge_holds.sample IS 'the beginning of one of its answers, without an essay';
COMMENT ON COLUMN judge_holds.n_answers IS 'answers that were paid for and held no verdict';
COMMENT ON COLUMN judge_holds.next_try_at IS 'when it is tried again unasked; null where that would only cost more';
COMMENT ON COLUMN judge_holds.released_at IS 'since when it is asked again; null while it is held';

CREATE VIEW v_judge_holds AS
SELECT h.batch_id, h.judge_id, h.waiting_for, h.reason, h.sample, h.n_answers, h.held_at,
       h.next_try_at
FROM judge_holds h
JOIN batches b ON b.batch_id = h.batch_id AND b.state = 'running'
WHERE h.released_at IS NULL
  AND NOT (h.waiting_for = 'person' AND EXISTS (
      SELECT 1 FROM attempts a
      WHERE a.batch_id = h.batch_id AND a.judge_id = h.judge_id AND a.outcome = 'succeeded'
  ));
COMMENT ON VIEW v_judge_holds IS 'One row per judge whose calls are held now; a verdict that is read in an old answer ends it.';

-- Whatever else may keep a batch waiting joins this view as further rows of `waits`.
DROP VIEW v_batch_waiting;
CREATE VIEW v_batch_waiting AS
WITH words AS (
    SELECT unnest(['key', 'credit', 'person', 'rows', 'room']) AS waiting_for,
           unnest([1, 2, 3, 4, 5]) AS urgency
),
waits AS (
    SELECT batch_id, waiting_for, error AS reason, next_poll_at AS until
    FROM v_job_phases WHERE waiting_for IS NOT NULL AND phase <> 'done'
    UNION ALL
    SELECT batch_id, waiting_for, reason, next_try_at AS until FROM v_judge_holds
)
SELECT batch_id, arg_min(waiting_for, urgency) AS waiting_for, arg_min(reason, urgency) AS reason,
       count(*) AS n_waits, min(until) AS next_try_at
FROM waits JOIN words USING (waiting_for)
GROUP BY batch_id;

COMMENT ON VIEW v_batch_waiting IS 'One row per batch that waits for something beside a provider''s own work.';
COMMENT ON COLUMN v_batch_waiting.batch_id IS 'the batch';
COMMENT ON COLUMN v_batch_waiting.waiting_for IS 'the most urgent of key, credit, person, rows and room';
COMMENT ON COLUMN v_batch_waiting.reason IS 'the same in words';
COMMENT ON COLUMN v_batch_waiting.n_waits IS 'how many of its jobs and judges wait';
COMMENT ON COLUMN v_batch_waiting.next_try_at IS 'when the first of them is tried again';

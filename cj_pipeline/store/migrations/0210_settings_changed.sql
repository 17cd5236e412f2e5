-- What may change of a batch under way is changed in the batch; its prompts stay as they were.
ALTER TABLE batches ADD COLUMN first_content_sha256 VARCHAR;
COMMENT ON COLUMN batches.first_content_sha256 IS 'Of its files as they were first taken in, where judges or settings were changed since: its prompts are derived from it';
ALTER TABLE judges ADD COLUMN replaced_by VARCHAR;
COMMENT ON COLUMN judges.replaced_by IS 'The judge that took its open comparisons, and takes those that come home without a verdict; null while it judges';

CREATE OR REPLACE VIEW v_judge_holds AS
SELECT h.batch_id, h.judge_id, h.waiting_for, h.reason, h.sample, h.n_answers, h.held_at,
       h.next_try_at
FROM judge_holds h
JOIN batches b ON b.batch_id = h.batch_id AND b.state = 'running'
WHERE h.released_at IS NULL
  AND NOT (h.waiting_for = 'person' AND EXISTS (
      SELECT 1 FROM attempts a
      WHERE a.batch_id = h.batch_id AND a.judge_id = h.judge_id AND a.outcome = 'succeeded'
  ))
  AND NOT EXISTS (
      SELECT 1 FROM judges j
      WHERE j.batch_id = h.batch_id AND j.judge_id = h.judge_id AND j.replaced_by IS NOT NULL
  );
COMMENT ON VIEW v_judge_holds IS 'One row per judge whose calls are held now; a verdict that is read in an old answer ends it, and so does another judge in its place.';

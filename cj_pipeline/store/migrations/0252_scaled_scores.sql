-- Scores that people can read: on the batch's own range or with its own mean and spread, and on one
-- scale over linked batches, so that a student's progress can be followed.
CREATE VIEW v_placed_scores AS
SELECT
    s.batch_id, s.essay_id, s.given_id, s.name, s.is_anchor,
    coalesce(l.scale_batch_id, s.batch_id) AS scale_batch_id,
    coalesce(l.score, s.score) AS score,
    coalesce(l.standard_error, s.standard_error) AS standard_error
FROM v_scores s
LEFT JOIN v_linked_scores l
    ON l.batch_id = s.batch_id AND l.essay_id = s.essay_id AND l.is_in_force;

COMMENT ON VIEW v_placed_scores IS 'One row per essay: its score on the scale where it may be compared, which is an earlier batch''s where the batch is linked to one.';
COMMENT ON COLUMN v_placed_scores.batch_id IS 'the batch';
COMMENT ON COLUMN v_placed_scores.essay_id IS 'the essay';
COMMENT ON COLUMN v_placed_scores.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_placed_scores.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_placed_scores.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_placed_scores.scale_batch_id IS 'the batch whose zero it is; scores with one of these may be compared';
COMMENT ON COLUMN v_placed_scores.score IS 'logits, on that scale';
COMMENT ON COLUMN v_placed_scores.standard_error IS 'logits; of a linked batch, the link''s own error included';

CREATE VIEW v_scaled_scores AS
WITH wanted AS (
    SELECT
        batch_id,
        CAST(settings->'scaled_scores'->>'low' AS DOUBLE) AS low,
        CAST(settings->'scaled_scores'->>'high' AS DOUBLE) AS high,
        CAST(settings->'scaled_scores'->>'mean' AS DOUBLE) AS mean,
        CAST(settings->'scaled_scores'->>'spread' AS DOUBLE) AS spread
    FROM batches
),
placed AS (
    SELECT p.*, w.low, w.high, w.mean, w.spread
    FROM v_placed_scores p JOIN wanted w ON w.batch_id = p.batch_id
    WHERE w.low IS NOT NULL OR w.mean IS NOT NULL
),
origins AS (
    SELECT batch_id, min(score) AS least, max(score) AS most,
           avg(score) FILTER (NOT is_anchor) AS mean_score,
           stddev_samp(score) FILTER (NOT is_anchor) AS spread_of_scores
    FROM v_scores GROUP BY batch_id
),
lines AS (
    SELECT p.*,
           CASE WHEN p.low IS NOT NULL THEN (p.high - p.low) / nullif(o.most - o.least, 0)
                ELSE p.spread / nullif(o.spread_of_scores, 0) END AS unit,
           CASE WHEN p.low IS NOT NULL THEN p.low ELSE p.mean END AS base,
           CASE WHEN p.low IS NOT NULL THEN o.least ELSE o.mean_score END AS zero
    FROM placed p JOIN origins o ON o.batch_id = p.scale_batch_id
)
SELECT batch_id, essay_id, given_id, name, is_anchor, scale_batch_id,
       base + unit * (score - zero) AS scaled_score,
       unit * standard_error AS standard_error, unit
FROM lines WHERE unit IS NOT NULL;

COMMENT ON VIEW v_scaled_scores IS 'One row per essay of a batch that sets `scaled_scores`: its score on that scale. A linked batch is on the scale that the batch it is linked to fixes, so its scores may lie outside the range.';
COMMENT ON COLUMN v_scaled_scores.batch_id IS 'the batch';
COMMENT ON COLUMN v_scaled_scores.essay_id IS 'the essay';
COMMENT ON COLUMN v_scaled_scores.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_scaled_scores.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_scaled_scores.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_scaled_scores.scale_batch_id IS 'the batch whose scores fix the scale';
COMMENT ON COLUMN v_scaled_scores.scaled_score IS 'in the units that the batch sets';
COMMENT ON COLUMN v_scaled_scores.standard_error IS 'in the same units';
COMMENT ON COLUMN v_scaled_scores.unit IS 'how many of these units one logit is';

CREATE VIEW v_student_progress AS
WITH named AS (
    SELECT p.scale_batch_id, coalesce(p.name, p.given_id) AS student, p.batch_id, p.essay_id,
           p.score, p.standard_error, b.created_at,
           count(*) OVER (PARTITION BY p.batch_id, coalesce(p.name, p.given_id)) AS n_alike
    FROM v_placed_scores p JOIN batches b ON b.batch_id = p.batch_id
    WHERE NOT p.is_anchor AND coalesce(p.name, p.given_id) IS NOT NULL
),
followed AS (
    SELECT *,
           lag(batch_id) OVER followed_student AS batch_before,
           lag(score) OVER followed_student AS score_before,
           lag(standard_error) OVER followed_student AS error_before
    FROM named WHERE n_alike = 1
    WINDOW followed_student AS (
        PARTITION BY scale_batch_id, student ORDER BY created_at, batch_id
    )
)
SELECT scale_batch_id, student, batch_id, essay_id, score, standard_error, batch_before,
       score_before, score - score_before AS change,
       sqrt(standard_error * standard_error + error_before * error_before)
           AS change_standard_error
FROM followed;

COMMENT ON VIEW v_student_progress IS 'One row per student and batch, over batches on one scale: how far the score is from the student''s score in the batch before. Students are known by their name, else by how they were submitted; a name that two in a batch share is left out.';
COMMENT ON COLUMN v_student_progress.scale_batch_id IS 'the batch whose zero the scores are on';
COMMENT ON COLUMN v_student_progress.student IS 'the student''s name, else the essay''s as submitted';
COMMENT ON COLUMN v_student_progress.batch_id IS 'the batch';
COMMENT ON COLUMN v_student_progress.essay_id IS 'the student''s essay in it';
COMMENT ON COLUMN v_student_progress.score IS 'logits, on that scale';
COMMENT ON COLUMN v_student_progress.standard_error IS 'logits, the link''s own error included';
COMMENT ON COLUMN v_student_progress.batch_before IS 'the batch before that the student is in; empty in the first';
COMMENT ON COLUMN v_student_progress.score_before IS 'logits, on the same scale';
COMMENT ON COLUMN v_student_progress.change IS 'logits; positive where the later text is placed higher';
COMMENT ON COLUMN v_student_progress.change_standard_error IS 'logits; both scores'' errors together, as if independent';

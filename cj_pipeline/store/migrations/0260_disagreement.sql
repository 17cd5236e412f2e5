-- How far judge and graders disagree: what a grading took beforehand, where it had that from, and what
-- it found; later gradings by the same judge, template, rubric and scale learn from it.
ALTER TABLE grading_reports ADD COLUMN disagreement JSON;
COMMENT ON COLUMN grading_reports.disagreement IS 'disagreement between judge and graders: what was taken beforehand, the earlier gradings that was learnt from, and what was found; empty in gradings of earlier versions and where nothing was fitted';

CREATE VIEW v_disagreements AS
WITH latest AS (
    SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id
),
read AS (
    SELECT
        batch_id, revision, scale, disagreement->'expected'->>'judged_by' AS judged_by,
        CAST(disagreement->'expected'->'prior'->>'log_mean' AS DOUBLE) AS log_mean,
        CAST(disagreement->'expected'->'prior'->>'log_sd' AS DOUBLE) AS log_sd,
        coalesce(json_array_length(disagreement->'expected'->'learnt_from'), 0) AS n_learnt_from,
        CAST(disagreement->'found'->>'median' AS DOUBLE) AS found,
        CAST(disagreement->'found'->>'lower' AS DOUBLE) AS found_lower,
        CAST(disagreement->'found'->>'upper' AS DOUBLE) AS found_upper,
        CAST(anchor_check->'log_score'->>'mean' AS DOUBLE) AS log_score,
        CAST(anchor_check->'log_score'->>'expected' AS DOUBLE) AS log_score_expected,
        CAST(anchor_check->'log_score'->>'guessing' AS DOUBLE) AS log_score_guessing,
        CAST(anchor_check->'log_score'->>'chance' AS DOUBLE) AS log_score_chance
    FROM grading_reports WHERE disagreement IS NOT NULL
)
SELECT
    r.batch_id, r.revision, r.revision = l.revision AS is_in_force, r.scale, r.judged_by,
    exp(r.log_mean) AS expected, exp(r.log_mean - 1.96 * r.log_sd) AS expected_lower,
    exp(r.log_mean + 1.96 * r.log_sd) AS expected_upper, r.n_learnt_from,
    r.found, r.found_lower, r.found_upper,
    r.log_score, r.log_score_expected, r.log_score_guessing, r.log_score_chance
FROM read r JOIN latest l ON l.batch_id = r.batch_id;

COMMENT ON VIEW v_disagreements IS 'One row per grading that anchors carried: how far judge and graders disagree, and whether the grades were as sure as they should be.';
COMMENT ON COLUMN v_disagreements.batch_id IS 'the batch';
COMMENT ON COLUMN v_disagreements.revision IS 'the grading';
COMMENT ON COLUMN v_disagreements.is_in_force IS 'whether that grading is the last one';
COMMENT ON COLUMN v_disagreements.scale IS 'the grade scale';
COMMENT ON COLUMN v_disagreements.judged_by IS 'checksum of judges, templates, rubric and scale; gradings with the same one are one history';
COMMENT ON COLUMN v_disagreements.expected IS 'steps; the disagreement taken beforehand (median)';
COMMENT ON COLUMN v_disagreements.expected_lower IS 'steps; lower end of its 95 % interval';
COMMENT ON COLUMN v_disagreements.expected_upper IS 'steps; upper end of its 95 % interval';
COMMENT ON COLUMN v_disagreements.n_learnt_from IS 'earlier gradings that was learnt from; 0 where the usual was taken';
COMMENT ON COLUMN v_disagreements.found IS 'steps; the disagreement once this grading''s grades are known (median)';
COMMENT ON COLUMN v_disagreements.found_lower IS 'steps; lower end of its 95 % interval';
COMMENT ON COLUMN v_disagreements.found_upper IS 'steps; upper end of its 95 % interval';
COMMENT ON COLUMN v_disagreements.log_score IS 'mean logarithm of the probability of an anchor''s known grade, graded by the others; 0 is the best';
COMMENT ON COLUMN v_disagreements.log_score_expected IS 'what it would be were those probabilities right';
COMMENT ON COLUMN v_disagreements.log_score_guessing IS 'what it would be were every grade as probable as every other';
COMMENT ON COLUMN v_disagreements.log_score_chance IS '0 to 1, the probability of a log score as low were those probabilities right; near 0 the grades were too sure';

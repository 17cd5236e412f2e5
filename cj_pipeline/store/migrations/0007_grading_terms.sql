-- What a grading went by and what it found, whole: its scale with every step, its thresholds, grades
-- with minus and plus, and the scores that grades were read from.
ALTER TABLE grading_reports ADD COLUMN scale_definition JSON;
COMMENT ON COLUMN grading_reports.scale_definition IS 'The grade scale as this grading took it: its steps, shares, minus and plus';
ALTER TABLE grading_reports ADD COLUMN terms JSON;
COMMENT ON COLUMN grading_reports.terms IS 'When this grading would have given no grades, and whether published shares weighed in';

ALTER TABLE grade_projections ADD COLUMN fine_grade VARCHAR;
COMMENT ON COLUMN grade_projections.fine_grade IS 'The grade with its minus or plus, where the scale has them';
ALTER TABLE grade_projections ADD COLUMN placed_score DOUBLE;
COMMENT ON COLUMN grade_projections.placed_score IS 'Logits; where the grade was read: the score drawn in as far as it is uncertain';

ALTER TABLE grade_boundaries ADD COLUMN lower DOUBLE;
ALTER TABLE grade_boundaries ADD COLUMN upper DOUBLE;
COMMENT ON COLUMN grade_boundaries.lower IS 'Logits; with `upper` it holds the boundary with 95 % probability';
COMMENT ON COLUMN grade_boundaries.upper IS 'Logits; see `lower`';

CREATE OR REPLACE VIEW v_grades AS
SELECT
    g.batch_id, g.essay_id, e.file_name, g.scale, g.grade, g.expected_grade, g.confidence,
    s.score, s.standard_error, s.rank, g.primary_anchor_id, g.is_extrapolated, g.revision,
    g.projected_at, g.fine_grade, g.placed_score
FROM grade_projections g
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) latest
    USING (batch_id, revision)
JOIN essays e USING (batch_id, essay_id)
LEFT JOIN v_scores s USING (batch_id, essay_id)
WHERE NOT g.is_anchor;

COMMENT ON VIEW v_grades IS 'The students'' grades of the latest grading; none where the anchors could not carry grades.';
COMMENT ON COLUMN v_grades.grade IS 'the most probable grade';
COMMENT ON COLUMN v_grades.expected_grade IS 'mean step of the scale under the probabilities; the lowest grade is 0';
COMMENT ON COLUMN v_grades.confidence IS '0 to 1, the probability of the most probable grade';
COMMENT ON COLUMN v_grades.score IS 'logits, mean-centred within the batch';
COMMENT ON COLUMN v_grades.primary_anchor_id IS 'the anchor nearest to the essay''s score';
COMMENT ON COLUMN v_grades.is_extrapolated IS 'lies outside the anchors: beware';
COMMENT ON COLUMN v_grades.revision IS 'grading again adds one';
COMMENT ON COLUMN v_grades.fine_grade IS 'the grade with its minus or plus, where the scale has them';
COMMENT ON COLUMN v_grades.placed_score IS 'logits; where the grade was read: the score drawn in as far as it is uncertain';

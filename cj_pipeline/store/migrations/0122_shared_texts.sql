-- Identical texts, where a batch lets them share: one is judged, and all get its result.
CREATE TABLE shared_texts (
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR NOT NULL,
    judged_id           VARCHAR NOT NULL,  -- the essay that is judged for it
    given_id            VARCHAR NOT NULL,
    name                VARCHAR,
    "group"             VARCHAR,
    attributes          JSON,
    file_name           VARCHAR NOT NULL,
    source_path         VARCHAR NOT NULL,
    PRIMARY KEY (batch_id, essay_id)
);
COMMENT ON TABLE shared_texts IS 'One row per essay whose text is identical to that of another, which is judged for both.';
COMMENT ON COLUMN shared_texts.given_id IS 'The name or number it was submitted under, as it was written';
COMMENT ON COLUMN shared_texts.source_path IS 'The file it was read from, relative to the batch folder';

DROP VIEW v_scores;
CREATE VIEW v_scores AS
SELECT
    s.batch_id, e.essay_id, e.given_id, e.name, e."group", e.file_name, e.is_anchor,
    e.grade AS anchor_grade, s.wave, s.rank, s.score, s.standard_error,
    coalesce(r.score_lower, s.score - 1.96 * s.standard_error) AS score_lower,
    coalesce(r.score_upper, s.score + 1.96 * s.standard_error) AS score_upper,
    s.verdict_score, s.verdict_standard_error, s.score_version,
    s.n_comparisons, s.n_wins, s.n_losses, s.is_one_sided, e.shares_text_of
FROM essay_scores s
JOIN (SELECT batch_id, max(wave) AS wave FROM essay_scores GROUP BY batch_id) latest
    USING (batch_id, wave)
JOIN (
    SELECT batch_id, essay_id, essay_id AS judged_id, NULL::VARCHAR AS shares_text_of, given_id,
        name, "group", file_name, is_anchor, grade
    FROM essays
    UNION ALL
    SELECT batch_id, essay_id, judged_id, judged_id, given_id, name, "group", file_name, false, NULL
    FROM shared_texts
) e
    ON e.batch_id = s.batch_id AND e.judged_id = s.essay_id
LEFT JOIN essay_ranks r ON r.batch_id = s.batch_id AND r.essay_id = s.essay_id;

COMMENT ON VIEW v_scores IS 'Where each essay stands after the latest wave of its batch.';
COMMENT ON COLUMN v_scores.given_id IS 'the name or number it was submitted under';
COMMENT ON COLUMN v_scores.score IS 'logits, mean-centred within the batch: never compare across batches';
COMMENT ON COLUMN v_scores.standard_error IS 'logits';
COMMENT ON COLUMN v_scores.score_lower IS 'of the 95 % interval, logits';
COMMENT ON COLUMN v_scores.score_upper IS 'of the same interval';
COMMENT ON COLUMN v_scores.verdict_score IS 'logits, by the verdicts alone: what grades are placed by';
COMMENT ON COLUMN v_scores.verdict_standard_error IS 'logits';
COMMENT ON COLUMN v_scores.score_version IS '1: score is verdict_score; 2: the mean of its posterior';
COMMENT ON COLUMN v_scores.rank IS '1 is the highest score; equal evidence, equal rank';
COMMENT ON COLUMN v_scores.anchor_grade IS 'the grade known beforehand; anchors only';
COMMENT ON COLUMN v_scores.n_wins IS 'a tie counts a half';
COMMENT ON COLUMN v_scores.is_one_sided IS 'won or lost everything: its verdict_score leans on the prior';

DROP VIEW v_grades;
CREATE VIEW v_grades AS
SELECT
    g.batch_id, s.essay_id, s.given_id, s.name, s."group",
    s.file_name, g.scale, g.grade, g.expected_grade, g.confidence,
    s.score, s.standard_error, s.rank, g.primary_anchor_id, g.is_extrapolated, g.revision,
    g.projected_at, g.fine_grade, g.placed_score, s.shares_text_of
FROM grade_projections g
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) latest
    USING (batch_id, revision)
JOIN v_scores s
    ON s.batch_id = g.batch_id AND coalesce(s.shares_text_of, s.essay_id) = g.essay_id
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
COMMENT ON COLUMN v_grades.given_id IS 'the name or number it was submitted under';
COMMENT ON COLUMN v_scores.shares_text_of IS 'the essay that was judged for both, where two texts are identical';
COMMENT ON COLUMN v_grades.shares_text_of IS 'the essay that was judged for both, where two texts are identical';

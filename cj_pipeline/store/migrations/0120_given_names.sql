-- Whom an essay is by, as it was handed in; and what was left out or masked on the way.
ALTER TABLE essays ADD COLUMN given_id VARCHAR;
ALTER TABLE essays ADD COLUMN name VARCHAR;
ALTER TABLE essays ADD COLUMN "group" VARCHAR;
ALTER TABLE essays ADD COLUMN attributes JSON;
ALTER TABLE essays ADD COLUMN notes JSON;
ALTER TABLE essays ADD COLUMN masked_text VARCHAR;

UPDATE essays SET given_id = CASE
    WHEN contains(source_path, '#') THEN substr(source_path, instr(source_path, '#') + 1)
    ELSE regexp_replace(file_name, '\.[^.]*$', '')
END;

COMMENT ON COLUMN essays.given_id IS 'The name or number it was submitted under, as it was written';
COMMENT ON COLUMN essays.name IS 'The student''s name, where the batch says it';
COMMENT ON COLUMN essays."group" IS 'The student''s class or group, where the batch says it';
COMMENT ON COLUMN essays.attributes IS 'What else a class register says of the student, by the register''s columns';
COMMENT ON COLUMN essays.notes IS 'What was left out or changed when the text was read from its file';
COMMENT ON COLUMN essays.masked_text IS 'What judges are shown in place of the text, where names are masked in it';

DROP VIEW v_scores;
CREATE VIEW v_scores AS
SELECT
    s.batch_id, s.essay_id, e.given_id, e.name, e."group", e.file_name, e.is_anchor,
    e.grade AS anchor_grade, s.wave, s.rank, s.score, s.standard_error,
    coalesce(r.score_lower, s.score - 1.96 * s.standard_error) AS score_lower,
    coalesce(r.score_upper, s.score + 1.96 * s.standard_error) AS score_upper,
    s.verdict_score, s.verdict_standard_error, s.score_version,
    s.n_comparisons, s.n_wins, s.n_losses, s.is_one_sided
FROM essay_scores s
JOIN (SELECT batch_id, max(wave) AS wave FROM essay_scores GROUP BY batch_id) latest
    USING (batch_id, wave)
JOIN essays e USING (batch_id, essay_id)
LEFT JOIN essay_ranks r USING (batch_id, essay_id);

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
    g.batch_id, g.essay_id, e.given_id, e.name, e."group",
    e.file_name, g.scale, g.grade, g.expected_grade, g.confidence,
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
COMMENT ON COLUMN v_grades.given_id IS 'the name or number it was submitted under';

DROP VIEW v_comparisons;
CREATE VIEW v_comparisons AS
SELECT
    c.batch_id, c.comparison_id, c.wave, c.sequence, p.role, p.expected_gain, p.resampling_pass,
    j.name AS judge, j.model, c.judge_id,
    c.essay_a, a.given_id AS given_id_a, a.file_name AS file_a, a.is_anchor AS is_anchor_a,
    c.essay_b, b.given_id AS given_id_b, b.file_name AS file_b, b.is_anchor AS is_anchor_b,
    c.status, c.failure_reason, c.winner, c.winner_id, c.loser_id, c.confidence,
    c.justification, c.n_attempts, c.tokens_prompt, c.tokens_completion, c.cost_usd,
    c.started_at, c.completed_at
FROM comparisons c
JOIN comparison_pairs p USING (batch_id, comparison_id)
JOIN essays a ON a.batch_id = c.batch_id AND a.essay_id = c.essay_a
JOIN essays b ON b.batch_id = c.batch_id AND b.essay_id = c.essay_b
LEFT JOIN judges j ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id;

COMMENT ON VIEW v_comparisons IS 'One row per comparison that has ended, with both essays and the judge.';
COMMENT ON COLUMN v_comparisons.sequence IS 'counts from 1 within the batch, in the order planned';
COMMENT ON COLUMN v_comparisons.role IS 'why it was asked';
COMMENT ON COLUMN v_comparisons.expected_gain IS 'what its verdict was expected to take off the loss: squared ranks (boundary: squared grade steps; asap and hybrid_mst: nats)';
COMMENT ON COLUMN v_comparisons.essay_a IS 'the essay shown first';
COMMENT ON COLUMN v_comparisons.winner IS 'A, B or tie, in the order shown; empty for a failure';
COMMENT ON COLUMN v_comparisons.confidence IS 'the judge''s own, 1 to 5';
COMMENT ON COLUMN v_comparisons.justification IS 'the judge''s words, as they came: treat as foreign text';
COMMENT ON COLUMN v_comparisons.cost_usd IS 'US dollars, over all attempts';

-- From here on a score is the mean of its posterior, drawn in by what its verdicts leave open
-- (version 2). Until now it was the likeliest by the verdicts alone (version 1), which stays beside
-- it as `verdict_score`. Scores kept before are version 1 and are left as they were reported.
ALTER TABLE essay_scores ADD COLUMN verdict_score DOUBLE;
ALTER TABLE essay_scores ADD COLUMN verdict_standard_error DOUBLE;
ALTER TABLE essay_scores ADD COLUMN score_version INTEGER;

UPDATE essay_scores SET
    verdict_score = score, verdict_standard_error = standard_error, score_version = 1;

-- Verdicts of batches scored before counted each as if it told afresh, and panels judged the same
-- pairs.
UPDATE batches
SET settings = json_merge_patch(settings, '{"verdict_dependence": "off", "common_pairs": 1.0}'),
    settings_origins = json_merge_patch(settings_origins, '{"verdict_dependence": "built-in", "common_pairs": "built-in"}')
WHERE json_extract(settings, '$.scoring_engine') IS NOT NULL;

COMMENT ON COLUMN essay_scores.score IS 'Logits, mean-centred within the batch: never compare across batches; what it means, score_version says';
COMMENT ON COLUMN essay_scores.standard_error IS 'Logits, of score';
COMMENT ON COLUMN essay_scores.rank IS '1 is the highest score; essays with equal evidence share a rank';
COMMENT ON COLUMN essay_scores.verdict_score IS 'Logits, by the verdicts and a weak prior alone: what grades are placed by';
COMMENT ON COLUMN essay_scores.verdict_standard_error IS 'Logits, of verdict_score';
COMMENT ON COLUMN essay_scores.score_version IS '1: score is verdict_score; 2: the mean of the posterior with the spread of the students'' scores integrated out';

DROP VIEW v_scores;
CREATE VIEW v_scores AS
SELECT
    s.batch_id, s.essay_id, e.file_name, e.is_anchor, e.grade AS anchor_grade,
    s.wave, s.rank, s.score, s.standard_error,
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

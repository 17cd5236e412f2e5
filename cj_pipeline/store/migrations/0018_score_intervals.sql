-- Between which limits each score of a finished scale lies, where 1.96 standard errors mislead.
ALTER TABLE essay_ranks ADD COLUMN score_lower DOUBLE;
ALTER TABLE essay_ranks ADD COLUMN score_upper DOUBLE;

DROP VIEW v_scores;
CREATE VIEW v_scores AS
SELECT
    s.batch_id, s.essay_id, e.file_name, e.is_anchor, e.grade AS anchor_grade,
    s.wave, s.rank, s.score, s.standard_error,
    coalesce(r.score_lower, s.score - 1.96 * s.standard_error) AS score_lower,
    coalesce(r.score_upper, s.score + 1.96 * s.standard_error) AS score_upper,
    s.n_comparisons, s.n_wins, s.n_losses, s.is_one_sided
FROM essay_scores s
JOIN (SELECT batch_id, max(wave) AS wave FROM essay_scores GROUP BY batch_id) latest
    USING (batch_id, wave)
JOIN essays e USING (batch_id, essay_id)
LEFT JOIN essay_ranks r USING (batch_id, essay_id);

COMMENT ON VIEW v_scores IS 'Where each essay stands after the latest wave of its batch.';
COMMENT ON COLUMN v_scores.score IS 'logits, mean-centred within the batch: never compare across batches';
COMMENT ON COLUMN v_scores.standard_error IS 'logits';
COMMENT ON COLUMN v_scores.score_lower IS 'of the 95 % interval, logits; by profile likelihood once the batch has ended, till then 1.96 standard errors below';
COMMENT ON COLUMN v_scores.score_upper IS 'of the same interval';
COMMENT ON COLUMN v_scores.rank IS '1 is the highest score';
COMMENT ON COLUMN v_scores.anchor_grade IS 'the grade known beforehand; anchors only';
COMMENT ON COLUMN v_scores.n_wins IS 'a tie counts a half';
COMMENT ON COLUMN v_scores.is_one_sided IS 'won or lost everything: its score leans on the prior';

-- Every essay's score after every wave of a batch: how the scale settled.
SELECT
    s.wave,
    s.essay_id,
    e.is_anchor,
    s.score,
    s.standard_error,
    s.rank,
    s.n_comparisons
FROM essay_scores AS s
JOIN essays AS e USING (batch_id, essay_id)
WHERE s.batch_id = $batch
ORDER BY s.wave, s.rank

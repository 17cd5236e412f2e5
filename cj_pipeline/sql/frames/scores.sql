-- Where each essay of a batch stands after its last wave, best first; one row per essay.
SELECT
    s.rank,
    s.essay_id,
    e.is_anchor,
    e.grade AS known_grade,
    s.score,
    s.standard_error,
    s.n_comparisons,
    s.n_wins,
    s.n_losses,
    s.n_shown_a,
    s.n_shown_b,
    s.is_one_sided
FROM essay_scores AS s
JOIN essays AS e USING (batch_id, essay_id)
WHERE
    s.batch_id = $batch
    AND s.wave = (SELECT max(wave) FROM essay_scores WHERE batch_id = $batch)
ORDER BY s.rank

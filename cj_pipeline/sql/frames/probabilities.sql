-- The probability of each grade for each essay of a batch; one row per essay and grade, grades
-- lowest first.
SELECT
    p.essay_id,
    p.is_anchor,
    step.place::INTEGER AS step,
    step.grade,
    (p.probabilities -> ('$."' || step.grade || '"'))::DOUBLE AS probability
FROM grade_projections AS p,
    LATERAL (
        SELECT
            unnest(json_keys(p.probabilities)) AS grade,
            generate_subscripts(json_keys(p.probabilities), 1) - 1 AS place
    ) AS step
WHERE
    p.batch_id = $batch
    AND p.revision = (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)
ORDER BY p.essay_id, step.place

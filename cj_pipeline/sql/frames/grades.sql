-- The last grading of a batch, highest expected grade first; one row per essay, none ungraded.
SELECT
    p.essay_id,
    p.is_anchor,
    e.grade AS known_grade,
    p.grade,
    p.confidence,
    p.expected_grade,
    p.primary_anchor_id,
    p.is_extrapolated,
    p.scale,
    p.revision
FROM grade_projections AS p
JOIN essays AS e USING (batch_id, essay_id)
WHERE
    p.batch_id = $batch
    AND p.revision = (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)
ORDER BY p.expected_grade DESC, p.essay_id

-- Where one grade of a batch ends and the next begins, lowest first, in logits.
SELECT
    position,
    below,
    above,
    boundary,
    standard_error
FROM grade_boundaries
WHERE
    batch_id = $batch
    AND revision = (SELECT max(revision) FROM grading_reports WHERE batch_id = $batch)
ORDER BY position

-- Every comparison of a batch that has come to an end, in the order asked.
SELECT
    c.sequence,
    c.wave,
    j.name AS judge,
    c.essay_a,
    c.essay_b,
    c.status,
    c.failure_reason,
    c.winner,
    c.winner_id,
    c.loser_id,
    c.confidence,
    c.justification,
    p.role,
    p.resampling_pass,
    c.n_attempts,
    c.tokens_prompt,
    c.tokens_completion,
    c.cost_usd,
    c.started_at,
    c.completed_at,
    c.comparison_id
FROM comparisons AS c
JOIN comparison_pairs AS p USING (comparison_id)
JOIN judges AS j ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id
WHERE c.batch_id = $batch
ORDER BY c.sequence

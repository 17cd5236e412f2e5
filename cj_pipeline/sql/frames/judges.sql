-- Each judge of a batch: what it was asked, how it answered, and what that cost.
SELECT
    j.name AS judge,
    j.provider,
    j.model,
    j.is_simulated,
    count(c.comparison_id) AS n_comparisons,
    count(*) FILTER (c.status = 'succeeded') AS n_verdicts,
    count(*) FILTER (c.status = 'failed') AS n_failed,
    count(*) FILTER (c.winner = 'tie') AS n_ties,
    count(*) FILTER (c.winner = 'A') / nullif(count(*) FILTER (c.winner IN ('A', 'B')), 0)
        AS first_shown_share,
    avg(c.confidence) AS mean_confidence,
    coalesce(sum(c.tokens_prompt), 0)::BIGINT AS tokens_prompt,
    coalesce(sum(c.tokens_completion), 0)::BIGINT AS tokens_completion,
    coalesce(sum(c.cost_usd), 0) AS cost_usd
FROM judges AS j
LEFT JOIN comparisons AS c ON c.batch_id = j.batch_id AND c.judge_id = j.judge_id
WHERE j.batch_id = $batch
GROUP BY ALL
ORDER BY j.name

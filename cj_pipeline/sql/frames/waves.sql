-- What was known after each wave of a batch, what it had cost by then, and what was decided.
SELECT
    d.wave,
    d.decision,
    d.reason,
    d.submitted,
    d.completed,
    d.failed,
    d.success_rate,
    d.max_score_change,
    (d.details ->> '$.bt_se_summary.mean_se')::DOUBLE AS mean_standard_error,
    (d.details ->> '$.empirical_bayes_reliability')::DOUBLE AS empirical_bayes_reliability,
    (d.details ->> '$.scale_separation_reliability')::DOUBLE AS scale_separation_reliability,
    (
        SELECT coalesce(sum(a.cost_usd), 0)
        FROM attempts AS a
        WHERE a.batch_id = d.batch_id AND a.wave <= d.wave
    ) AS cost_so_far_usd,
    d.decided_at
FROM wave_decisions AS d
WHERE d.batch_id = $batch
ORDER BY d.wave

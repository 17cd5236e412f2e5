-- A batch that was found beforehand to be unable to end with scores, and that a person started
-- anyway, says so.

CREATE OR REPLACE VIEW v_batches AS
SELECT
    b.batch_id, b.title, b.state, b.end_reason,
    coalesce(e.n_essays, 0) AS n_essays,
    coalesce(e.n_anchors, 0) AS n_anchors,
    coalesce(p.n_waves, 0) AS n_waves,
    coalesce(p.n_planned, 0) AS n_planned,
    coalesce(c.n_succeeded, 0) AS n_succeeded,
    coalesce(c.n_failed, 0) AS n_failed,
    coalesce(c.cost_usd, 0) AS cost_usd,
    coalesce(j.is_simulated, FALSE) AS is_simulated,
    b.runner_mode, b.created_at, b.ended_at,
    coalesce(CAST(b.metadata->'started_despite' AS VARCHAR[]), []) AS started_despite
FROM batches b
LEFT JOIN (
    SELECT batch_id, count(*) AS n_essays, count(*) FILTER (is_anchor) AS n_anchors
    FROM essays GROUP BY batch_id
) e USING (batch_id)
LEFT JOIN (
    SELECT batch_id, max(wave) AS n_waves, count(*) AS n_planned
    FROM comparison_pairs GROUP BY batch_id
) p USING (batch_id)
LEFT JOIN (
    SELECT
        batch_id,
        count(*) FILTER (status = 'succeeded') AS n_succeeded,
        count(*) FILTER (status = 'failed') AS n_failed,
        sum(cost_usd) AS cost_usd
    FROM comparisons GROUP BY batch_id
) c USING (batch_id)
LEFT JOIN (
    SELECT batch_id, bool_or(is_simulated) AS is_simulated FROM judges GROUP BY batch_id
) j USING (batch_id);

COMMENT ON VIEW v_batches IS 'One row per batch: how it stands, why it ended, what it cost.';
COMMENT ON COLUMN v_batches.state IS 'running, succeeded, failed, cancelled or rejected';
COMMENT ON COLUMN v_batches.end_reason IS 'why it ended, such as precise, stable or budget_spent; empty while it runs';
COMMENT ON COLUMN v_batches.n_essays IS 'essays in the batch, anchors included';
COMMENT ON COLUMN v_batches.n_anchors IS 'essays whose grade was known beforehand';
COMMENT ON COLUMN v_batches.n_waves IS 'waves planned so far';
COMMENT ON COLUMN v_batches.n_planned IS 'comparisons planned, whatever became of them';
COMMENT ON COLUMN v_batches.n_succeeded IS 'comparisons that ended in a verdict';
COMMENT ON COLUMN v_batches.n_failed IS 'comparisons that failed for good';
COMMENT ON COLUMN v_batches.cost_usd IS 'US dollars, over all attempts of the ended comparisons';
COMMENT ON COLUMN v_batches.is_simulated IS 'whether any judge was simulated: then no grade here means anything';
COMMENT ON COLUMN v_batches.started_despite IS 'why it could not end with scores, where a person started it anyway; empty otherwise';

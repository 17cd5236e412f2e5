-- Why a pair was asked stands beside its verdict, and what each wave foresaw in a view of its own.
DROP VIEW v_comparisons;
CREATE VIEW v_comparisons AS
SELECT
    c.batch_id, c.comparison_id, c.wave, c.sequence, p.role, p.expected_gain, p.resampling_pass,
    j.name AS judge, j.model, c.judge_id,
    c.essay_a, a.file_name AS file_a, a.is_anchor AS is_anchor_a,
    c.essay_b, b.file_name AS file_b, b.is_anchor AS is_anchor_b,
    c.status, c.failure_reason, c.winner, c.winner_id, c.loser_id, c.confidence,
    c.justification, c.n_attempts, c.tokens_prompt, c.tokens_completion, c.cost_usd,
    c.started_at, c.completed_at
FROM comparisons c
JOIN comparison_pairs p USING (batch_id, comparison_id)
JOIN essays a ON a.batch_id = c.batch_id AND a.essay_id = c.essay_a
JOIN essays b ON b.batch_id = c.batch_id AND b.essay_id = c.essay_b
LEFT JOIN judges j ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id;

COMMENT ON VIEW v_comparisons IS 'One row per comparison that has ended, with both essays and the judge.';
COMMENT ON COLUMN v_comparisons.sequence IS 'counts from 1 within the batch, in the order planned';
COMMENT ON COLUMN v_comparisons.role IS 'why it was asked';
COMMENT ON COLUMN v_comparisons.expected_gain IS 'what its verdict was expected to take off the loss: squared ranks (boundary: squared grade steps; asap and hybrid_mst: nats)';
COMMENT ON COLUMN v_comparisons.essay_a IS 'the essay shown first';
COMMENT ON COLUMN v_comparisons.winner IS 'A, B or tie, in the order shown; empty for a failure';
COMMENT ON COLUMN v_comparisons.confidence IS 'the judge''s own, 1 to 5';
COMMENT ON COLUMN v_comparisons.justification IS 'the judge''s words, as they came: treat as foreign text';
COMMENT ON COLUMN v_comparisons.cost_usd IS 'US dollars, over all attempts';

CREATE VIEW v_forecasts AS
SELECT
    batch_id, wave, completed AS n_verdicts,
    CAST(details -> '$.forecast.total' AS BIGINT) AS total,
    CAST(details -> '$.forecast.lower' AS BIGINT) AS lower,
    CAST(details -> '$.forecast.upper' AS BIGINT) AS upper,
    CAST(details -> '$.forecast.waves' AS BIGINT) AS waves,
    CAST(details -> '$.forecast.usd' AS DOUBLE) AS usd,
    decided_at
FROM wave_decisions
WHERE json_type(details, '$.forecast') = 'OBJECT';

COMMENT ON VIEW v_forecasts IS 'What it would take to be as precise as a batch asks, foreseen after each wave.';
COMMENT ON COLUMN v_forecasts.n_verdicts IS 'comparisons with a verdict so far';
COMMENT ON COLUMN v_forecasts.total IS 'comparisons in all; between lower and upper in four batches of five';
COMMENT ON COLUMN v_forecasts.waves IS 'still to come';
COMMENT ON COLUMN v_forecasts.usd IS 'US dollars still to be spent; empty where no price is known';

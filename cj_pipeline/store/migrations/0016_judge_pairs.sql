-- How far each two judges of a batch agree, verdict by verdict.

CREATE VIEW v_judge_pairs AS
WITH said AS (
    SELECT
        batch_id, judge_id, essay_a, essay_b, winner,
        row_number() OVER (
            PARTITION BY batch_id, judge_id, essay_a, essay_b ORDER BY sequence
        ) AS time_asked
    FROM comparisons WHERE status = 'succeeded'
),
counted AS (
    SELECT
        one.batch_id, one.judge_id AS judge_one, other.judge_id AS judge_other,
        count(*) AS n_items,
        avg((one.winner = other.winner)::DOUBLE) AS agreement,
        avg((one.winner = 'A')::DOUBLE) * avg((other.winner = 'A')::DOUBLE)
            + avg((one.winner = 'B')::DOUBLE) * avg((other.winner = 'B')::DOUBLE)
            + avg((one.winner = 'tie')::DOUBLE) * avg((other.winner = 'tie')::DOUBLE)
            AS by_chance
    FROM said one
    JOIN said other USING (batch_id, essay_a, essay_b, time_asked)
    WHERE one.judge_id < other.judge_id
    GROUP BY one.batch_id, one.judge_id, other.judge_id
)
SELECT
    batch_id, judge_one, judge_other, n_items, agreement,
    CASE WHEN by_chance < 1 THEN (agreement - by_chance) / (1 - by_chance) END AS kappa
FROM counted;

COMMENT ON VIEW v_judge_pairs IS 'Each two judges of a batch: how often they gave the same verdict on the same essays in the same order.';
COMMENT ON COLUMN v_judge_pairs.n_items IS 'comparisons that both decided; asked again, the same essays in the same order are another one';
COMMENT ON COLUMN v_judge_pairs.agreement IS 'share of these with the same verdict';
COMMENT ON COLUMN v_judge_pairs.kappa IS 'Cohen''s: agreement beyond chance, 1 for all; empty where both always said the same one thing';

-- What happened to a batch and how it then stood, told once each and in order; the last is `ended`.
CREATE TABLE progress_events (
    batch_id            VARCHAR NOT NULL,
    sequence            INTEGER NOT NULL,  -- counts from 1 within the batch, without gaps
    kind                VARCHAR NOT NULL,  -- opened | asked | checkpoint | decided | cancelling | ended
    outcome             VARCHAR,           -- of the batch; with `ended` only
    wave                INTEGER NOT NULL,
    checkpoint          INTEGER NOT NULL,  -- the last one that the comparisons home have passed
    n_done              INTEGER NOT NULL,
    share_done          DOUBLE NOT NULL,
    cost_usd            DOUBLE NOT NULL,
    progress            JSON NOT NULL,     -- all of it, judge by judge
    recorded_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, sequence)
);

CREATE VIEW v_progress AS
SELECT batch_id, sequence, kind, outcome, wave, n_done,
       CAST(progress->>'n_expected' AS INTEGER) AS n_expected,
       share_done,
       CAST(progress->>'comparisons_per_s' AS DOUBLE) AS comparisons_per_s,
       CAST(progress->'eta'->>'seconds' AS DOUBLE) AS eta_s,
       cost_usd,
       CAST(progress->>'projected_usd' AS DOUBLE) AS projected_usd,
       recorded_at
FROM progress_events;

COMMENT ON VIEW v_progress IS 'One row per event of a batch, in order: how far it had come.';
COMMENT ON COLUMN v_progress.sequence IS 'counts from 1 within the batch, without gaps';
COMMENT ON COLUMN v_progress.kind IS 'opened, asked, checkpoint, decided, cancelling or ended';
COMMENT ON COLUMN v_progress.outcome IS 'with ended: success, partial, failure, empty, cancelled, expired or stalled';
COMMENT ON COLUMN v_progress.n_done IS 'comparisons home, or counted as done by their provider';
COMMENT ON COLUMN v_progress.n_expected IS 'comparisons at which the batch ends unless a rule ends it sooner';
COMMENT ON COLUMN v_progress.share_done IS 'between 0 and 1, never less than before';
COMMENT ON COLUMN v_progress.comparisons_per_s IS 'lately; empty while unknown';
COMMENT ON COLUMN v_progress.eta_s IS 'seconds until all is home; empty while unknown';
COMMENT ON COLUMN v_progress.cost_usd IS 'US dollars billed so far';
COMMENT ON COLUMN v_progress.projected_usd IS 'US dollars expected in all; empty while unknown';

-- Which batches are runs of a trial, what was expected of each, and how far it was from the last.
CREATE TABLE trial_runs (
    batch_id            VARCHAR PRIMARY KEY,
    trial               VARCHAR NOT NULL,
    fingerprint         VARCHAR NOT NULL,  -- of what could change its outcome; only alike compare
    definition          JSON NOT NULL,     -- as it was when this run was opened
    due_at              TIMESTAMPTZ NOT NULL,
    is_met              BOOLEAN,           -- whether every expectation holds; null until it ended
    figures             JSON,
    findings            JSON,              -- one per expectation: what was found, whether it holds
    drift               JSON,              -- compared with the run before; null for the first
    concluded_at        TIMESTAMPTZ
);
COMMENT ON TABLE trial_runs IS 'One row per run of a trial: the batch it was, what came out, and drift since the run before.';
COMMENT ON COLUMN trial_runs.is_met IS 'whether every expectation of the definition holds; empty until the batch has ended';

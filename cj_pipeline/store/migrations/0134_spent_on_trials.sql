-- What calls cost that try a judge and belong to no batch: an installation's ceiling for a day counts them.
CREATE TABLE spent_on_trials (
    trial_id            VARCHAR PRIMARY KEY,
    judges              VARCHAR NOT NULL,      -- fingerprints, with commas
    n_calls             INTEGER NOT NULL,
    reserved_usd        DOUBLE NOT NULL,
    billed_usd          DOUBLE,                -- null until the calls have ended
    begun_at            TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE spent_on_trials IS 'One row per command that tried judges by single calls of no batch, and what they cost.';
COMMENT ON COLUMN spent_on_trials.reserved_usd IS 'US dollars; the most the calls could cost';
COMMENT ON COLUMN spent_on_trials.billed_usd IS 'US dollars; null while they are made, or where the command was killed: then the reservation counts';

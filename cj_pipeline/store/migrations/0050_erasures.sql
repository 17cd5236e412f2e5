-- Where copies of the store were written, so that an erasure can name what it does not reach.
CREATE TABLE backups (
    path                VARCHAR PRIMARY KEY,
    written_at          TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE backups IS 'One row per backup that was written: where, and when.';

-- What is to be removed, written down before anything is: whatever dies, it is finished later.
CREATE TABLE erasures (
    erasure_id          VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR,           -- null for a whole batch, and once its rows are gone
    essay_alias         VARCHAR,           -- the id an essay bears since; null for a whole batch
    state               VARCHAR NOT NULL,  -- intended | rows_gone
    n_rows              BIGINT,            -- rows removed or rewritten, once they are
    n_files             BIGINT,
    asked_at            TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE erasures IS 'Erasures that were begun and have not come to their end; empty as a rule.';
COMMENT ON COLUMN erasures.state IS 'intended, or rows_gone: the rows are deleted, and what deletion leaves in the files is not gone yet';

-- What a batch that was removed had cost: money stays, words go.
CREATE TABLE forgotten_costs (
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    provider            VARCHAR NOT NULL,
    model               VARCHAR NOT NULL,
    account             VARCHAR NOT NULL,
    day                 DATE NOT NULL,     -- on which the jobs were intended, UTC
    n_jobs              BIGINT NOT NULL,
    n_requests          BIGINT NOT NULL,
    tokens_prompt       BIGINT NOT NULL,
    tokens_completion   BIGINT NOT NULL,
    reserved_usd        DOUBLE NOT NULL,
    billed_usd          DOUBLE NOT NULL,
    possible_usd        DOUBLE NOT NULL,
    forgotten_at        TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE forgotten_costs IS 'What batches that were removed had cost: one row per batch, judge, account and day.';
COMMENT ON COLUMN forgotten_costs.reserved_usd IS 'US dollars; the worst case of jobs that were never settled';
COMMENT ON COLUMN forgotten_costs.billed_usd IS 'US dollars, duplicates included';
COMMENT ON COLUMN forgotten_costs.possible_usd IS 'US dollars beyond the bill that may have been spent';

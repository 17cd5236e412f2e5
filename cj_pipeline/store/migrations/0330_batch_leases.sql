-- Which process moves a batch along: it alone may write what belongs to the batch's next step.
CREATE TABLE batch_leases (
    batch_id VARCHAR NOT NULL PRIMARY KEY,
    holder   VARCHAR,
    fence    BIGINT NOT NULL,
    free_at  TIMESTAMPTZ NOT NULL
);

COMMENT ON TABLE batch_leases IS 'One row per batch that a worker (`cj work`) has ever taken. Where the store is a lake, they are in the PostgreSQL table cj_batch_leases instead.';
COMMENT ON COLUMN batch_leases.holder IS 'host and process that have the batch; empty where none has';
COMMENT ON COLUMN batch_leases.fence IS 'grows with each taking; a writer with an older number is refused';
COMMENT ON COLUMN batch_leases.free_at IS 'from when on anybody may take it; a holder that lives moves it on';

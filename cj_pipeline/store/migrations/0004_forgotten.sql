-- What was removed on request: that it happened, never what it was.
CREATE TABLE forgotten (
    forgotten_at        TIMESTAMPTZ NOT NULL,
    batch_id            VARCHAR NOT NULL,
    essay_alias         VARCHAR,           -- the id an essay bears since; null for a whole batch
    n_rows              BIGINT NOT NULL,   -- rows removed or rewritten
    n_files             BIGINT NOT NULL
);

-- Where data was written that people asked for, so that an erasure can remove it in the home and name it elsewhere.
CREATE TABLE exports (
    path                VARCHAR NOT NULL,  -- a file, or the folder of files that are named after essays
    host                VARCHAR NOT NULL,
    kind                VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,  -- `*` where nobody knows which batches are in it
    essay_id            VARCHAR,           -- where it is about one essay alone
    written_at          TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE exports IS 'One row per batch and file or folder that a person had written: where, and when.';
COMMENT ON COLUMN exports.path IS 'a file, or the folder of files that are named after essays';
COMMENT ON COLUMN exports.host IS 'the machine it was written on';
COMMENT ON COLUMN exports.kind IS 'what it is: data frames, pages, verdicts, a query, ...';
COMMENT ON COLUMN exports.batch_id IS 'the batch; * where nobody knows which batches are in it';
COMMENT ON COLUMN exports.essay_id IS 'the essay, where it is about one alone';
ALTER TABLE erasures ADD COLUMN exports JSON;
COMMENT ON COLUMN erasures.exports IS 'What lies outside the home of it, to be named at the end';

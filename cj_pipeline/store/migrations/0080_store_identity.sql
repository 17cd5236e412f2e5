-- Which store this is, where it lies, and since when providers may have jobs of it that it does not know.
CREATE TABLE store_epochs (
    number              INTEGER PRIMARY KEY, -- counts up; the newest is the one that holds
    store_id            VARCHAR NOT NULL,    -- 16 hexadecimal digits
    epoch               VARCHAR NOT NULL,    -- 8 hexadecimal digits
    reason              VARCHAR NOT NULL,    -- made, restored, copied, forgotten or moved
    host                VARCHAR,
    folder              VARCHAR,
    jobs_since          TIMESTAMPTZ,
    jobs_until          TIMESTAMPTZ,
    begun_at            TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE store_epochs IS 'One row per beginning of this store: made, restored from a backup, found to be a copy, or after a batch was forgotten.';
COMMENT ON COLUMN store_epochs.number IS 'counts up; the newest row holds';
COMMENT ON COLUMN store_epochs.store_id IS 'the store; it and the epoch end every submission key. A copy has one of its own, and the rows above tell what it was copied from';
COMMENT ON COLUMN store_epochs.epoch IS 'drawn anew at each beginning';
COMMENT ON COLUMN store_epochs.reason IS 'made, restored, copied, forgotten (a batch was) or moved';
COMMENT ON COLUMN store_epochs.host IS 'the machine; where another one, or another folder, finds these rows, the home is a copy';
COMMENT ON COLUMN store_epochs.folder IS 'the home''s folder, or what PostgreSQL calls the lake''s catalog';
COMMENT ON COLUMN store_epochs.jobs_since IS 'from when on providers may have jobs of this store that it does not know: they are searched for before anything is sent; null where there are none';
COMMENT ON COLUMN store_epochs.jobs_until IS 'until when such jobs may have been made; null where all were in the providers'' lists already';

-- A job that was found again may bear the key of an earlier epoch, or of the store this one was copied from.
CREATE TABLE borne_keys (
    submission_key      VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    borne_key           VARCHAR NOT NULL
);
COMMENT ON TABLE borne_keys IS 'One row per adopted provider job that bears another key at its provider than in the ledger.';
COMMENT ON COLUMN borne_keys.borne_key IS 'the key that the provider shows; whose store it names may cancel the job';

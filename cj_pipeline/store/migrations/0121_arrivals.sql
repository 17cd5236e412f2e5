-- What lies in the inbox, item by item: so that nothing is lost, held up by another, or hidden.
CREATE TABLE arrivals (
    name                VARCHAR PRIMARY KEY,
    kind                VARCHAR NOT NULL,  -- folder | zip | other
    state               VARCHAR NOT NULL,  -- settling | waiting | opened | rejected | changed | forgotten
    batch_id            VARCHAR NOT NULL,
    fingerprint         VARCHAR NOT NULL,
    reason              VARCHAR,
    tries               INTEGER NOT NULL,
    first_seen_at       TIMESTAMPTZ NOT NULL,
    last_seen_at        TIMESTAMPTZ NOT NULL,
    changed_at          TIMESTAMPTZ NOT NULL,
    next_try_at         TIMESTAMPTZ,
    place               VARCHAR NOT NULL
);
COMMENT ON TABLE arrivals IS 'One row per folder or zip file that was put into the inbox, and what became of it.';
COMMENT ON COLUMN arrivals.name IS 'As it was named in the inbox';
COMMENT ON COLUMN arrivals.kind IS 'folder, zip, or other: nothing that can be a batch';
COMMENT ON COLUMN arrivals.state IS 'settling: it may still be copied; waiting: to be opened, or opened again; opened; rejected; changed: since it was opened; forgotten: its batch was removed for good';
COMMENT ON COLUMN arrivals.batch_id IS 'The batch it becomes or became';
COMMENT ON COLUMN arrivals.fingerprint IS 'Changes whenever one of its files does';
COMMENT ON COLUMN arrivals.reason IS 'Why it is in this state, for people';
COMMENT ON COLUMN arrivals.tries IS 'How often it was tried to open it as it is now';
COMMENT ON COLUMN arrivals.last_seen_at IS 'When it was last seen there, to within ten minutes';
COMMENT ON COLUMN arrivals.changed_at IS 'When it was last seen to be different';
COMMENT ON COLUMN arrivals.next_try_at IS 'Not before this is it tried again';
COMMENT ON COLUMN arrivals.place IS 'inbox, or the folder it was moved to when it was opened';

-- By what a removed batch would be known should its files come back: a checksum, and no word of it.
ALTER TABLE forgotten ADD COLUMN content_sha256 VARCHAR;
COMMENT ON COLUMN forgotten.content_sha256 IS 'Of a whole batch''s files, so that it does not come back unnoticed under another name';

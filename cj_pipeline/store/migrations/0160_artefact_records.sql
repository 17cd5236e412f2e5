-- Every artefact that was ever written: a file that claims to be one of them can be held against it.
CREATE TABLE artefact_records (
    batch_id            VARCHAR NOT NULL,
    runner_mode         VARCHAR NOT NULL,
    artefact_checksum   VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    key_id              VARCHAR,
    written_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, artefact_checksum)
);

COMMENT ON TABLE artefact_records IS 'One row per artefact that was written, earlier ones too: by it `cj verify` tells a file that was altered and had its checksum mended.';
COMMENT ON COLUMN artefact_records.batch_id IS 'the batch';
COMMENT ON COLUMN artefact_records.runner_mode IS 'plan, dry-run or execute';
COMMENT ON COLUMN artefact_records.artefact_checksum IS 'the checksum the artefact states of itself';
COMMENT ON COLUMN artefact_records.sha256 IS 'SHA-256 of the file, byte for byte';
COMMENT ON COLUMN artefact_records.key_id IS 'the key that signed it (cj keys); NULL where the home had none';
COMMENT ON COLUMN artefact_records.written_at IS 'when';

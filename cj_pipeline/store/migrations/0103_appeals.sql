-- Somebody asks for another look at one essay: new comparisons by people who had no part in it.
CREATE TABLE appeals (
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    essay_id            VARCHAR NOT NULL,
    reason              VARCHAR NOT NULL,
    requested_by        VARCHAR NOT NULL,
    requested_at        TIMESTAMPTZ NOT NULL,
    revision            INTEGER NOT NULL,  -- the grading that is appealed
    machine_grade       VARCHAR,
    n_pairs             INTEGER NOT NULL,
    PRIMARY KEY (batch_id, number)
);

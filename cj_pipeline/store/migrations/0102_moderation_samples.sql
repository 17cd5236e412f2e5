-- Students drawn to be graded by hand without a look at their grades, and what teachers gave them.
CREATE TABLE moderation_samples (
    sample_id           VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    method              VARCHAR NOT NULL,  -- random | stratified
    revision            INTEGER NOT NULL,  -- the grading it was drawn at
    drawn_by            VARCHAR NOT NULL,
    drawn_at            TIMESTAMPTZ NOT NULL
);

CREATE TABLE moderation_sample_essays (
    sample_id           VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR NOT NULL,
    code                VARCHAR NOT NULL,  -- what the sheet calls it
    probability         DOUBLE NOT NULL,   -- with which it was drawn
    PRIMARY KEY (sample_id, essay_id)
);

CREATE TABLE sampled_grades (
    sample_id           VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR NOT NULL,
    grade               VARCHAR NOT NULL,
    graded_by           VARCHAR NOT NULL,
    stored_at           TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (sample_id, essay_id)
);

ALTER TABLE grading_reports ADD COLUMN sampled_grades JSON;
COMMENT ON COLUMN grading_reports.sampled_grades IS 'grades that teachers gave to sampled students, which this grading took into account; empty without any';

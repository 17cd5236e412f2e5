-- What a finished scale is worth, and how sure its ranks are.
CREATE TABLE scale_statistics (
    batch_id            VARCHAR PRIMARY KEY,
    statistics          JSON NOT NULL,     -- figures by name, the honest headline first
    computed_at         TIMESTAMPTZ NOT NULL
);

CREATE TABLE essay_ranks (
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR NOT NULL,
    rank                INTEGER NOT NULL,  -- among all essays; equal scores share the better one
    rank_lower          INTEGER NOT NULL,  -- best rank within the 95 % interval
    rank_upper          INTEGER NOT NULL,  -- worst rank within it
    student_rank        INTEGER,           -- among the students' essays; null for anchors
    student_rank_lower  INTEGER,
    student_rank_upper  INTEGER,
    p_above_next        DOUBLE,            -- that a student truly stands above the next one
    PRIMARY KEY (batch_id, essay_id)
);

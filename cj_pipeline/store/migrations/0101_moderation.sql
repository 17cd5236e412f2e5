-- What people decided about grades, and who released them. Rows are only ever added.
CREATE TABLE moderation_decisions (
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    essay_id            VARCHAR NOT NULL,
    kind                VARCHAR NOT NULL,  -- accept | override | judge | exclude
    grade               VARCHAR,           -- of an override
    machine_grade       VARCHAR,           -- what the grading had
    revision            INTEGER NOT NULL,  -- the grading that was looked at
    reason              VARCHAR NOT NULL,
    decided_by          VARCHAR NOT NULL,
    decided_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, number)
);

CREATE TABLE release_events (
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    kind                VARCHAR NOT NULL,  -- released | withdrawn
    revision            INTEGER NOT NULL,  -- the grading that was released
    released_by         VARCHAR NOT NULL,
    note                VARCHAR NOT NULL,
    looked_at           JSON NOT NULL,     -- how much of the queue was looked at, and what came of it
    released_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, number)
);

CREATE VIEW v_release AS
WITH graded AS (
    SELECT batch_id, arg_max(revision, revision) AS revision,
           arg_max(is_graded, revision) AS is_graded
    FROM grading_reports GROUP BY batch_id
),
last_event AS (
    SELECT batch_id, arg_max(kind, number) AS kind, arg_max(revision, number) AS revision,
           arg_max(released_by, number) AS released_by, arg_max(released_at, number) AS released_at
    FROM release_events GROUP BY batch_id
),
last_decision AS (
    SELECT batch_id, max(decided_at) AS decided_at FROM moderation_decisions GROUP BY batch_id
)
SELECT
    b.batch_id, g.revision,
    coalesce(b.settings->>'release', 'automatic') AS release_rule,
    CASE
        WHEN g.revision IS NULL OR NOT g.is_graded THEN 'no grades'
        WHEN coalesce(b.settings->>'release', 'automatic') <> 'needs_sign_off' THEN 'final'
        WHEN e.kind = 'withdrawn' THEN 'withdrawn'
        WHEN e.kind IS NULL THEN 'provisional'
        WHEN e.revision <> g.revision OR coalesce(d.decided_at > e.released_at, FALSE)
            THEN 'changed since release'
        ELSE 'released'
    END AS status,
    e.revision AS released_revision, e.released_by, e.released_at
FROM batches b
LEFT JOIN graded g USING (batch_id)
LEFT JOIN last_event e USING (batch_id)
LEFT JOIN last_decision d USING (batch_id);

COMMENT ON VIEW v_release IS 'One row per batch: whether its grades may be used as final.';
COMMENT ON COLUMN v_release.revision IS 'the last grading; grading again adds one';
COMMENT ON COLUMN v_release.release_rule IS 'automatic or needs_sign_off, as batch.yaml has it';
COMMENT ON COLUMN v_release.status IS 'no grades, final (needs no sign-off), provisional, released, changed since release, or withdrawn; grades may be used where it is final or released';
COMMENT ON COLUMN v_release.released_revision IS 'the grading that was released last';
COMMENT ON COLUMN v_release.released_by IS 'who released or withdrew last';
COMMENT ON COLUMN v_release.released_at IS 'when';

CREATE VIEW v_given_grades AS
WITH decided AS (
    SELECT batch_id, essay_id, arg_max(kind, number) AS kind, arg_max(grade, number) AS grade,
           arg_max(reason, number) AS reason, arg_max(decided_by, number) AS decided_by,
           arg_max(decided_at, number) AS decided_at
    FROM moderation_decisions WHERE kind <> 'judge' GROUP BY batch_id, essay_id
)
SELECT
    g.batch_id, g.essay_id,
    CASE d.kind WHEN 'override' THEN d.grade WHEN 'exclude' THEN NULL ELSE g.grade END
        AS given_grade,
    g.grade AS machine_grade, g.confidence, d.kind AS decision, d.reason, d.decided_by,
    d.decided_at, r.status, g.revision
FROM grade_projections g
JOIN v_release r ON r.batch_id = g.batch_id AND r.revision = g.revision
LEFT JOIN decided d ON d.batch_id = g.batch_id AND d.essay_id = g.essay_id
WHERE NOT g.is_anchor;

COMMENT ON VIEW v_given_grades IS 'The students'' grades as they may be given, with what a person decided of each; they are final only where `status` says so.';
COMMENT ON COLUMN v_given_grades.given_grade IS 'the grade of a person where one was set, else the machine''s; empty for an excluded essay';
COMMENT ON COLUMN v_given_grades.machine_grade IS 'the most probable grade by the last grading';
COMMENT ON COLUMN v_given_grades.decision IS 'accept, override or exclude; empty where nobody decided';
COMMENT ON COLUMN v_given_grades.status IS 'as in v_release: grades may be used where it is final or released';
COMMENT ON COLUMN v_given_grades.revision IS 'grading again adds one';

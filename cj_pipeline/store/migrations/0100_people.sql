-- People who judge: what they are to judge, what each was shown, and what each answered.
-- Rows are only ever added. A verdict that counts is a row of `comparisons` as well.
CREATE TABLE judging_tasks (
    task_id             VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    essay_a             VARCHAR NOT NULL,  -- in no order: each person is shown one of their own
    essay_b             VARCHAR NOT NULL,
    part                VARCHAR NOT NULL,  -- random | targeted | second | moderation | appeal
    probability         DOUBLE,            -- of being drawn; random part only
    reason              VARCHAR NOT NULL,
    expected_gain       DOUBLE,            -- what a verdict tells; targeted part only
    place               INTEGER NOT NULL,  -- lower ones are handed out first
    planned_at          TIMESTAMPTZ NOT NULL
);

CREATE TABLE judge_links (
    link_id             VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    person              VARCHAR NOT NULL,
    token_sha256        VARCHAR NOT NULL,
    quota               INTEGER,           -- verdicts asked of this person; empty: whatever is left
    made_at             TIMESTAMPTZ NOT NULL,
    made_by             VARCHAR NOT NULL,
    expires_at          TIMESTAMPTZ NOT NULL
);

CREATE TABLE judge_link_revocations (
    link_id             VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    revoked_at          TIMESTAMPTZ NOT NULL,
    revoked_by          VARCHAR NOT NULL,
    reason              VARCHAR NOT NULL
);

CREATE TABLE judging_assignments (
    assignment_id       VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    task_id             VARCHAR NOT NULL,
    link_id             VARCHAR NOT NULL,
    person              VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 for each person
    essay_a             VARCHAR NOT NULL,  -- shown first
    essay_b             VARCHAR NOT NULL,
    repeats             VARCHAR,           -- the assignment it shows again, sides exchanged
    assigned_at         TIMESTAMPTZ NOT NULL
);

CREATE TABLE human_answers (
    answer_id           VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    kind                VARCHAR NOT NULL,  -- verdict | skip
    source              VARCHAR NOT NULL,  -- page | import
    import_name         VARCHAR,
    assignment_id       VARCHAR,           -- empty for imports
    comparison_id       VARCHAR,           -- where it counts; empty for skips and repeats
    judge_id            VARCHAR NOT NULL,
    person              VARCHAR NOT NULL,
    essay_a             VARCHAR NOT NULL,  -- shown first
    essay_b             VARCHAR NOT NULL,
    winner              VARCHAR,           -- A | B | tie, in the order shown; empty for skips
    reason              VARCHAR,           -- of a skip, or beside a verdict
    active_s            DOUBLE,            -- seconds with the page visible and in use
    elapsed_s           DOUBLE,            -- seconds from being shown
    replaces            VARCHAR,           -- the answer it takes the place of
    decided_at          TIMESTAMPTZ NOT NULL,
    stored_at           TIMESTAMPTZ NOT NULL
);

CREATE TABLE withdrawn_answers (
    answer_id           VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    withdrawn_at        TIMESTAMPTZ NOT NULL,
    withdrawn_by        VARCHAR NOT NULL,
    reason              VARCHAR NOT NULL
);

CREATE VIEW v_human_verdicts AS
SELECT
    h.batch_id, h.number, h.source, h.import_name, h.judge_id, h.essay_a, h.essay_b, h.winner,
    CASE h.winner WHEN 'A' THEN h.essay_a WHEN 'B' THEN h.essay_b ELSE h.winner END AS winner_id,
    h.comparison_id, s.repeats IS NOT NULL AS is_repeat,
    t.part, t.probability, h.active_s, h.elapsed_s, h.decided_at, h.stored_at,
    w.withdrawn_at,
    EXISTS (FROM human_answers later WHERE later.replaces = h.answer_id) AS is_replaced
FROM human_answers h
LEFT JOIN judging_assignments s ON s.assignment_id = h.assignment_id
LEFT JOIN judging_tasks t ON t.task_id = s.task_id
LEFT JOIN withdrawn_answers w ON w.answer_id = h.answer_id
WHERE h.kind = 'verdict';

COMMENT ON VIEW v_human_verdicts IS 'One row per verdict a person gave or that was imported, those that count no more included; who gave it is not in it.';
COMMENT ON COLUMN v_human_verdicts.winner_id IS 'the essay that won, or tie';
COMMENT ON COLUMN v_human_verdicts.comparison_id IS 'the comparison it counts as; empty for repeats, which only show how steady a person is';
COMMENT ON COLUMN v_human_verdicts.part IS 'random, targeted, second (another person on the same pair), moderation or appeal; empty for imports';
COMMENT ON COLUMN v_human_verdicts.probability IS 'with which the pair was drawn; random part only';
COMMENT ON COLUMN v_human_verdicts.active_s IS 'seconds with the page visible and in use';
COMMENT ON COLUMN v_human_verdicts.elapsed_s IS 'seconds from being shown to being decided';
COMMENT ON COLUMN v_human_verdicts.withdrawn_at IS 'when it was taken back; empty while it counts';
COMMENT ON COLUMN v_human_verdicts.is_replaced IS 'whether the person changed it afterwards';

-- The last thing that happened to a batch's human verdicts: grades from before do not know of it.
CREATE VIEW v_human_changes AS
SELECT batch_id, max(changed_at) AS changed_at
FROM (
    SELECT batch_id, stored_at AS changed_at FROM human_answers
    WHERE kind = 'verdict' AND comparison_id IS NOT NULL
    UNION ALL
    SELECT batch_id, withdrawn_at FROM withdrawn_answers
)
GROUP BY batch_id;

COMMENT ON VIEW v_human_changes IS 'When the verdicts of people that count last changed, by batch.';
COMMENT ON COLUMN v_human_changes.changed_at IS 'when one was stored or taken back';

CREATE VIEW v_judging_tasks AS
SELECT
    t.batch_id, t.task_id, t.judge_id, t.essay_a, t.essay_b, t.part, t.probability, t.reason,
    t.expected_gain, t.place, t.planned_at,
    count(DISTINCT s.assignment_id) FILTER (s.repeats IS NULL) AS n_assigned,
    count(h.answer_id) FILTER (h.kind = 'verdict' AND h.comparison_id IS NOT NULL) AS n_verdicts,
    count(h.answer_id) FILTER (h.kind = 'skip') AS n_skips
FROM judging_tasks t
LEFT JOIN judging_assignments s ON s.task_id = t.task_id
LEFT JOIN (
    FROM human_answers answers
    WHERE NOT EXISTS (FROM human_answers later WHERE later.replaces = answers.answer_id)
) h ON h.assignment_id = s.assignment_id
GROUP BY ALL;

COMMENT ON VIEW v_judging_tasks IS 'One row per pair that a person is to judge, and whether one has.';
COMMENT ON COLUMN v_judging_tasks.part IS 'random, targeted, second (another person on the same pair), moderation or appeal';
COMMENT ON COLUMN v_judging_tasks.probability IS 'with which the pair was drawn; random part only';
COMMENT ON COLUMN v_judging_tasks.expected_gain IS 'what a verdict tells; targeted part only';
COMMENT ON COLUMN v_judging_tasks.n_assigned IS 'people who were shown it';
COMMENT ON COLUMN v_judging_tasks.n_verdicts IS 'verdicts on it that count; 0 while it is open';

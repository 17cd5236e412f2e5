-- Feedback as teachers edited it, for a student or the class; the draft is made from verdicts anew each time.
CREATE TABLE feedback_edits (
    batch_id            VARCHAR NOT NULL,
    number              INTEGER NOT NULL,  -- counts from 1 through the batch
    essay_id            VARCHAR NOT NULL,  -- empty for the whole class
    text                VARCHAR NOT NULL,
    edited_by           VARCHAR NOT NULL,
    edited_at           TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, number)
);
COMMENT ON TABLE feedback_edits IS 'feedback that a teacher wrote in place of the draft; the last of an essay holds';
COMMENT ON COLUMN feedback_edits.essay_id IS 'whose feedback it is; empty for the whole class';
COMMENT ON COLUMN feedback_edits.number IS 'counts from 1 through the batch';
COMMENT ON COLUMN feedback_edits.text IS 'as edited; each line ends with the comparison it comes from, or with [teacher]';
COMMENT ON COLUMN feedback_edits.edited_by IS 'who edited it';
COMMENT ON COLUMN feedback_edits.edited_at IS 'when';

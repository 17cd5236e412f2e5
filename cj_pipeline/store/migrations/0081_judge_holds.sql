-- A judge of a batch whose calls are held: nothing more is bought of it until somebody has acted.
CREATE TABLE judge_holds (
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    waiting_for         VARCHAR NOT NULL,    -- credit or person
    reason              VARCHAR NOT NULL,
    sample              VARCHAR,
    n_answers           BIGINT NOT NULL,
    held_at             TIMESTAMPTZ NOT NULL,
    next_try_at         TIMESTAMPTZ,
    released_at         TIMESTAMPTZ,
    PRIMARY KEY (batch_id, judge_id)
);
COMMENT ON TABLE judge_holds IS 'One row per judge of a batch whose calls are held, or were: it gave no verdict, or its account ran out of credit.';
COMMENT ON COLUMN judge_holds.waiting_for IS 'credit, or person: a decision about a judge that gives no verdict';
COMMENT ON COLUMN judge_holds.reason IS 'in words';
COMMENT ON COLUMN judge_holds.sample IS 'the beginning of one of its answers, without an essay';
COMMENT ON COLUMN judge_holds.n_answers IS 'answers that were paid for and held no verdict';
COMMENT ON COLUMN judge_holds.next_try_at IS 'when it is tried again unasked; null where that would only cost more';
COMMENT ON COLUMN judge_holds.released_at IS 'since when it is asked again; null while it is held';

CREATE VIEW v_judge_holds AS
SELECT h.batch_id, h.judge_id, h.waiting_for, h.reason, h.sample, h.n_answers, h.held_at,
       h.next_try_at
FROM judge_holds h
JOIN batches b ON b.batch_id = h.batch_id AND b.state = 'running'
WHERE h.released_at IS NULL
  AND NOT (h.waiting_for = 'person' AND EXISTS (
      SELECT 1 FROM attempts a
      WHERE a.batch_id = h.batch_id AND a.judge_id = h.judge_id AND a.outcome = 'succeeded'
  ));
COMMENT ON VIEW v_judge_holds IS 'One row per judge whose calls are held now; a verdict that is read in an old answer ends it.';

-- What could not be deleted at a provider. It names no batch, so it outlasts a batch that is forgotten.
CREATE TABLE provider_leftovers (
    submission_key      VARCHAR NOT NULL,
    what                VARCHAR NOT NULL,
    is_file             BOOLEAN NOT NULL,
    provider            VARCHAR NOT NULL,
    account             VARCHAR NOT NULL,
    judge               VARCHAR NOT NULL,
    error               VARCHAR,
    n_tries             INTEGER NOT NULL,
    found_at            TIMESTAMPTZ NOT NULL,
    next_try_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (submission_key, what)
);
COMMENT ON TABLE provider_leftovers IS 'One row per file or job that still lies at a provider although nothing needs it: it may hold essays. Gone once it is deleted.';
COMMENT ON COLUMN provider_leftovers.submission_key IS 'the provider job it belonged to';
COMMENT ON COLUMN provider_leftovers.what IS 'the id of the file or of the job at the provider';
COMMENT ON COLUMN provider_leftovers.judge IS 'the judge''s definition as JSON: how the provider is reached';
COMMENT ON COLUMN provider_leftovers.next_try_at IS 'when it is tried again';

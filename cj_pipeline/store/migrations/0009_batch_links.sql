-- Batches placed on the scale of earlier ones, with every grading that went by it.
CREATE TABLE batch_links (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,  -- of the grading
    position            INTEGER NOT NULL,  -- of the link in the chain, from 1
    placed_batch_id     VARCHAR NOT NULL,  -- the batch this link placed; the last is batch_id
    onto_batch_id       VARCHAR NOT NULL,  -- whose scale it is on now
    n_shared            INTEGER NOT NULL,  -- anchors in both
    n_tying             INTEGER NOT NULL,  -- of these, anchors that had not drifted
    shift               DOUBLE NOT NULL,   -- logits; what places the batch's scores on that scale
    shift_standard_error DOUBLE NOT NULL,
    unit_ratio          DOUBLE,            -- how much wider anchors lie apart than before
    unit_ratio_error    DOUBLE,            -- standard error of its logarithm
    statement           VARCHAR NOT NULL,
    linked_at           TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, revision, position)
);

CREATE TABLE anchor_drifts (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    essay_id            VARCHAR NOT NULL,  -- as batch_id calls it, or batch/essay
    earlier_score       DOUBLE NOT NULL,   -- logits, on the scale linked to
    later_score         DOUBLE NOT NULL,   -- on the same scale, once placed
    drift               DOUBLE NOT NULL,   -- against the other anchors; positive: now seen as better
    standard_error      DOUBLE NOT NULL,
    is_drifted          BOOLEAN NOT NULL,  -- left out of the link
    PRIMARY KEY (batch_id, revision, position, essay_id)
);

CREATE TABLE linked_scores (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,
    essay_id            VARCHAR NOT NULL,
    scale_batch_id      VARCHAR NOT NULL,  -- the batch whose zero it is
    score               DOUBLE NOT NULL,   -- logits; comparable with that batch's scores
    standard_error      DOUBLE NOT NULL,   -- the link's own error included
    PRIMARY KEY (batch_id, revision, essay_id)
);

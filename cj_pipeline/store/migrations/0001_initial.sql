-- The first schema. Files here are only ever added to, never changed once released.

CREATE TABLE batches (
    batch_id            VARCHAR PRIMARY KEY,
    title               VARCHAR NOT NULL,
    source_path         VARCHAR NOT NULL,
    content_sha256      VARCHAR NOT NULL,
    state               VARCHAR NOT NULL,  -- running | succeeded | failed | cancelled | rejected
    end_reason          VARCHAR,
    settings            JSON NOT NULL,
    settings_origins    JSON NOT NULL,
    metadata            JSON NOT NULL,
    problems            JSON NOT NULL,     -- why a rejected batch was not taken in
    runner_mode         VARCHAR NOT NULL,
    correlation_id      VARCHAR NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL,
    ended_at            TIMESTAMPTZ
);

CREATE TABLE essays (
    batch_id            VARCHAR NOT NULL,
    essay_id            VARCHAR NOT NULL,
    position            INTEGER NOT NULL,  -- order in which the batch lists it, from 1
    is_anchor           BOOLEAN NOT NULL,
    grade               VARCHAR,           -- known beforehand; anchors only
    text                VARCHAR NOT NULL,
    file_name           VARCHAR NOT NULL,
    source_path         VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    n_bytes             BIGINT NOT NULL,
    PRIMARY KEY (batch_id, essay_id)
);

CREATE TABLE documents (
    batch_id            VARCHAR NOT NULL,
    kind                VARCHAR NOT NULL,  -- instructions | rubric | batch
    content             VARCHAR NOT NULL,
    source_path         VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    n_bytes             BIGINT NOT NULL,
    PRIMARY KEY (batch_id, kind)
);

CREATE TABLE judges (
    batch_id            VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,  -- its fingerprint: model, template and settings
    name                VARCHAR NOT NULL,
    provider            VARCHAR NOT NULL,
    model               VARCHAR NOT NULL,
    template            VARCHAR NOT NULL,
    definition          JSON NOT NULL,
    is_simulated        BOOLEAN NOT NULL,
    PRIMARY KEY (batch_id, judge_id)
);

CREATE TABLE comparison_pairs (
    comparison_id       VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    sequence            INTEGER NOT NULL,
    judge_id            VARCHAR NOT NULL,
    essay_a             VARCHAR NOT NULL,  -- shown first
    essay_b             VARCHAR NOT NULL,
    role                VARCHAR NOT NULL,
    resampling_pass     INTEGER NOT NULL,  -- 0 for coverage
    expected_gain       DOUBLE,
    planned_at          TIMESTAMPTZ NOT NULL
);

CREATE TABLE provider_jobs (
    submission_key      VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    judge_id            VARCHAR NOT NULL,
    batching_mode       VARCHAR NOT NULL,
    provider            VARCHAR NOT NULL,
    model               VARCHAR NOT NULL,
    account             VARCHAR NOT NULL,  -- fingerprint of key and base address
    state               VARCHAR NOT NULL,  -- intent | uploaded | submitted | ambiguous | adopted
                                           -- | running | ended | collected | settled | refused
    n_requests          INTEGER NOT NULL,
    n_bytes             BIGINT NOT NULL,
    content_sha256      VARCHAR,           -- of the request file, once it is built
    input_file_id       VARCHAR,
    provider_job_id     VARCHAR,
    provider_status     VARCHAR,           -- as the provider words it
    outcome             VARCHAR,           -- of the job: completed | failed | expired | cancelled
    output_file_id      VARCHAR,
    error_file_id       VARCHAR,
    n_completed         INTEGER,           -- as the provider counts
    n_failed            INTEGER,
    error_code          VARCHAR,           -- why the job as a whole failed
    error               VARCHAR,
    reserved_usd        DOUBLE NOT NULL,
    billed_usd          DOUBLE,
    intended_at         TIMESTAMPTZ NOT NULL,
    submitted_at        TIMESTAMPTZ,
    ended_at            TIMESTAMPTZ,
    collected_at        TIMESTAMPTZ,
    polled_at           TIMESTAMPTZ,
    next_poll_at        TIMESTAMPTZ,
    n_polls             INTEGER NOT NULL DEFAULT 0,
    lease_owner         VARCHAR,           -- who is submitting it now, so that nobody else does
    lease_until         TIMESTAMPTZ
);

-- One row per request: a comparison is asked again under a new attempt.
CREATE TABLE attempts (
    custom_id           VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    comparison_id       VARCHAR NOT NULL,
    attempt             INTEGER NOT NULL,
    submission_key      VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    prompt_sha256       VARCHAR NOT NULL,
    outcome             VARCHAR,           -- null until its provider job is collected
    error_code          VARCHAR,
    error_message       VARCHAR,
    may_retry           BOOLEAN,           -- whether asking the same again may help
    tokens_prompt       BIGINT,
    tokens_cached       BIGINT,
    tokens_cache_write  BIGINT,
    tokens_completion   BIGINT,
    tokens_reasoning    BIGINT,
    cost_usd            DOUBLE,
    requested_at        TIMESTAMPTZ NOT NULL,
    completed_at        TIMESTAMPTZ,
    PRIMARY KEY (comparison_id, attempt)
);

-- What came back, as it came back, stored before anything reads it.
CREATE TABLE callbacks (
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    submission_key      VARCHAR NOT NULL,
    source              VARCHAR NOT NULL,  -- output | error | single
    line                INTEGER NOT NULL,
    custom_id           VARCHAR,           -- null where the line could not be read
    kind                VARCHAR NOT NULL,  -- matched | duplicate | foreign | garbled
    body                VARCHAR NOT NULL,
    received_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (submission_key, source, line)
);

-- One row per comparison that has come to an end: a verdict, or a failure for good.
CREATE TABLE comparisons (
    comparison_id       VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    sequence            INTEGER NOT NULL,
    judge_id            VARCHAR NOT NULL,
    essay_a             VARCHAR NOT NULL,
    essay_b             VARCHAR NOT NULL,
    status              VARCHAR NOT NULL,  -- succeeded | failed
    failure_reason      VARCHAR,
    winner              VARCHAR,           -- A | B | tie, in the order shown
    winner_id           VARCHAR,
    loser_id            VARCHAR,
    confidence          DOUBLE,
    justification       VARCHAR,
    n_attempts          INTEGER NOT NULL,
    custom_id           VARCHAR NOT NULL,  -- of the attempt that decided it
    prompt_sha256       VARCHAR NOT NULL,
    tokens_prompt       BIGINT NOT NULL,   -- over all its attempts
    tokens_completion   BIGINT NOT NULL,
    cost_usd            DOUBLE NOT NULL,
    started_at          TIMESTAMPTZ NOT NULL,
    completed_at        TIMESTAMPTZ NOT NULL
);

CREATE TABLE essay_scores (
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    essay_id            VARCHAR NOT NULL,
    score               DOUBLE NOT NULL,   -- logits, mean-centred over the batch
    standard_error      DOUBLE NOT NULL,
    rank                INTEGER NOT NULL,
    n_comparisons       INTEGER NOT NULL,
    n_wins              DOUBLE NOT NULL,   -- a tie counts a half
    n_losses            DOUBLE NOT NULL,
    n_shown_a           INTEGER NOT NULL,
    n_shown_b           INTEGER NOT NULL,
    is_one_sided        BOOLEAN NOT NULL,  -- won or lost everything
    PRIMARY KEY (batch_id, wave, essay_id)
);

CREATE TABLE wave_decisions (
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    decision            VARCHAR NOT NULL,
    reason              VARCHAR,
    submitted           INTEGER NOT NULL,
    completed           INTEGER NOT NULL,
    failed              INTEGER NOT NULL,
    completion_denominator INTEGER NOT NULL,
    success_rate        DOUBLE NOT NULL,
    max_score_change    DOUBLE,
    details             JSON NOT NULL,     -- reliabilities, quality flags and summaries
    decided_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, wave)
);

CREATE TABLE grade_projections (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,  -- grading again adds one, nothing is overwritten
    essay_id            VARCHAR NOT NULL,
    scale               VARCHAR NOT NULL,
    grade               VARCHAR NOT NULL,
    expected_grade      DOUBLE NOT NULL,
    confidence          DOUBLE NOT NULL,
    probabilities       JSON NOT NULL,
    primary_anchor_id   VARCHAR,
    is_extrapolated     BOOLEAN NOT NULL,
    is_anchor           BOOLEAN NOT NULL,
    projected_at        TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, revision, essay_id)
);

CREATE TABLE grade_boundaries (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,
    scale               VARCHAR NOT NULL,
    position            INTEGER NOT NULL,
    below               VARCHAR NOT NULL,
    above               VARCHAR NOT NULL,
    boundary            DOUBLE NOT NULL,   -- logits
    standard_error      DOUBLE NOT NULL,
    PRIMARY KEY (batch_id, revision, position)
);

-- Why a batch was or was not graded, with the anchors' self-check.
CREATE TABLE grading_reports (
    batch_id            VARCHAR NOT NULL,
    revision            INTEGER NOT NULL,
    scale               VARCHAR,
    is_graded           BOOLEAN NOT NULL,
    statement           VARCHAR NOT NULL,
    anchor_check        JSON NOT NULL,
    projected_at        TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, revision)
);

CREATE TABLE ledger (
    batch_id            VARCHAR NOT NULL,
    submission_key      VARCHAR NOT NULL,
    judge_id            VARCHAR NOT NULL,
    kind                VARCHAR NOT NULL,  -- reserved | billed | released
    usd                 DOUBLE NOT NULL,
    entered_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (submission_key, kind)
);

CREATE TABLE run_artefact (
    batch_id            VARCHAR NOT NULL,
    runner_mode         VARCHAR NOT NULL,
    path                VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    n_bytes             BIGINT NOT NULL,
    written_at          TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (batch_id, runner_mode)
);

CREATE TABLE batch_report (
    batch_id            VARCHAR PRIMARY KEY,
    path                VARCHAR NOT NULL,
    sha256              VARCHAR NOT NULL,
    n_bytes             BIGINT NOT NULL,
    written_at          TIMESTAMPTZ NOT NULL
);

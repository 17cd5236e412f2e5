-- What analysts look at first; the tables beneath hold everything.

CREATE VIEW v_batches AS
SELECT
    b.batch_id, b.title, b.state, b.end_reason,
    coalesce(e.n_essays, 0) AS n_essays,
    coalesce(e.n_anchors, 0) AS n_anchors,
    coalesce(p.n_waves, 0) AS n_waves,
    coalesce(p.n_planned, 0) AS n_planned,
    coalesce(c.n_succeeded, 0) AS n_succeeded,
    coalesce(c.n_failed, 0) AS n_failed,
    coalesce(c.cost_usd, 0) AS cost_usd,
    coalesce(j.is_simulated, FALSE) AS is_simulated,
    b.runner_mode, b.created_at, b.ended_at
FROM batches b
LEFT JOIN (
    SELECT batch_id, count(*) AS n_essays, count(*) FILTER (is_anchor) AS n_anchors
    FROM essays GROUP BY batch_id
) e USING (batch_id)
LEFT JOIN (
    SELECT batch_id, max(wave) AS n_waves, count(*) AS n_planned
    FROM comparison_pairs GROUP BY batch_id
) p USING (batch_id)
LEFT JOIN (
    SELECT
        batch_id,
        count(*) FILTER (status = 'succeeded') AS n_succeeded,
        count(*) FILTER (status = 'failed') AS n_failed,
        sum(cost_usd) AS cost_usd
    FROM comparisons GROUP BY batch_id
) c USING (batch_id)
LEFT JOIN (
    SELECT batch_id, bool_or(is_simulated) AS is_simulated FROM judges GROUP BY batch_id
) j USING (batch_id);

COMMENT ON VIEW v_batches IS 'One row per batch: how it stands, why it ended, what it cost.';
COMMENT ON COLUMN v_batches.state IS 'running, succeeded, failed, cancelled or rejected';
COMMENT ON COLUMN v_batches.end_reason IS 'why it ended, such as precise, stable or budget_spent; empty while it runs';
COMMENT ON COLUMN v_batches.n_essays IS 'essays in the batch, anchors included';
COMMENT ON COLUMN v_batches.n_anchors IS 'essays whose grade was known beforehand';
COMMENT ON COLUMN v_batches.n_waves IS 'waves planned so far';
COMMENT ON COLUMN v_batches.n_planned IS 'comparisons planned, whatever became of them';
COMMENT ON COLUMN v_batches.n_succeeded IS 'comparisons that ended in a verdict';
COMMENT ON COLUMN v_batches.n_failed IS 'comparisons that failed for good';
COMMENT ON COLUMN v_batches.cost_usd IS 'US dollars, over all attempts of the ended comparisons';
COMMENT ON COLUMN v_batches.is_simulated IS 'whether any judge was simulated: then no grade here means anything';

CREATE VIEW v_waves AS
SELECT
    p.batch_id, p.wave, p.n_planned,
    coalesce(c.n_succeeded, 0) AS n_succeeded,
    coalesce(c.n_failed, 0) AS n_failed,
    coalesce(c.cost_usd, 0) AS cost_usd,
    d.decision, d.reason, d.success_rate, d.max_score_change,
    d.submitted, d.completed, d.completion_denominator,
    p.planned_at, d.decided_at
FROM (
    SELECT batch_id, wave, count(*) AS n_planned, min(planned_at) AS planned_at
    FROM comparison_pairs GROUP BY batch_id, wave
) p
LEFT JOIN (
    SELECT
        batch_id, wave,
        count(*) FILTER (status = 'succeeded') AS n_succeeded,
        count(*) FILTER (status = 'failed') AS n_failed,
        sum(cost_usd) AS cost_usd
    FROM comparisons GROUP BY batch_id, wave
) c USING (batch_id, wave)
LEFT JOIN wave_decisions d USING (batch_id, wave);

COMMENT ON VIEW v_waves IS 'One row per wave: what was asked, what came of it, what was decided.';
COMMENT ON COLUMN v_waves.wave IS 'counts from 1 within the batch';
COMMENT ON COLUMN v_waves.n_planned IS 'comparisons of this wave alone';
COMMENT ON COLUMN v_waves.cost_usd IS 'US dollars, this wave alone';
COMMENT ON COLUMN v_waves.decision IS 'what happened next, decided after the fit';
COMMENT ON COLUMN v_waves.success_rate IS 'share of ended comparisons with a verdict, whole batch so far';
COMMENT ON COLUMN v_waves.max_score_change IS 'logits; the largest change of any score since the wave before';
COMMENT ON COLUMN v_waves.submitted IS 'comparisons asked, whole batch so far';
COMMENT ON COLUMN v_waves.completed IS 'comparisons with a verdict, whole batch so far';
COMMENT ON COLUMN v_waves.completion_denominator IS 'the comparisons at which the batch must end';

CREATE VIEW v_scores AS
SELECT
    s.batch_id, s.essay_id, e.file_name, e.is_anchor, e.grade AS anchor_grade,
    s.wave, s.rank, s.score, s.standard_error, s.n_comparisons, s.n_wins, s.n_losses,
    s.is_one_sided
FROM essay_scores s
JOIN (SELECT batch_id, max(wave) AS wave FROM essay_scores GROUP BY batch_id) latest
    USING (batch_id, wave)
JOIN essays e USING (batch_id, essay_id);

COMMENT ON VIEW v_scores IS 'Where each essay stands after the latest wave of its batch.';
COMMENT ON COLUMN v_scores.score IS 'logits, mean-centred within the batch: never compare across batches';
COMMENT ON COLUMN v_scores.standard_error IS 'logits';
COMMENT ON COLUMN v_scores.rank IS '1 is the highest score';
COMMENT ON COLUMN v_scores.anchor_grade IS 'the grade known beforehand; anchors only';
COMMENT ON COLUMN v_scores.n_wins IS 'a tie counts a half';
COMMENT ON COLUMN v_scores.is_one_sided IS 'won or lost everything: its score leans on the prior';

CREATE VIEW v_grades AS
SELECT
    g.batch_id, g.essay_id, e.file_name, g.scale, g.grade, g.expected_grade, g.confidence,
    s.score, s.standard_error, s.rank, g.primary_anchor_id, g.is_extrapolated, g.revision,
    g.projected_at
FROM grade_projections g
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) latest
    USING (batch_id, revision)
JOIN essays e USING (batch_id, essay_id)
LEFT JOIN v_scores s USING (batch_id, essay_id)
WHERE NOT g.is_anchor;

COMMENT ON VIEW v_grades IS 'The students'' grades of the latest grading; none where the anchors could not carry grades.';
COMMENT ON COLUMN v_grades.grade IS 'the most probable grade';
COMMENT ON COLUMN v_grades.expected_grade IS 'mean step of the scale under the probabilities; the lowest grade is 0';
COMMENT ON COLUMN v_grades.confidence IS '0 to 1, from how the probabilities are spread';
COMMENT ON COLUMN v_grades.score IS 'logits, mean-centred within the batch';
COMMENT ON COLUMN v_grades.primary_anchor_id IS 'the anchor nearest to the essay''s score';
COMMENT ON COLUMN v_grades.is_extrapolated IS 'lies outside the anchors: beware';
COMMENT ON COLUMN v_grades.revision IS 'grading again adds one';

CREATE VIEW v_grade_probabilities AS
SELECT batch_id, essay_id, revision, scale, is_anchor, entry.key AS grade,
    entry.value AS probability
FROM (
    SELECT
        g.batch_id, g.essay_id, g.revision, g.scale, g.is_anchor,
        unnest(map_entries(CAST(g.probabilities AS MAP(VARCHAR, DOUBLE)))) AS entry
    FROM grade_projections g
    JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) latest
        USING (batch_id, revision)
);

COMMENT ON VIEW v_grade_probabilities IS 'One row per essay and grade of the latest grading; an essay''s probabilities sum to 1.';
COMMENT ON COLUMN v_grade_probabilities.is_anchor IS 'for an anchor: what its score alone would say';

CREATE VIEW v_comparisons AS
SELECT
    c.batch_id, c.comparison_id, c.wave, c.sequence, p.role, p.resampling_pass,
    j.name AS judge, j.model, c.judge_id,
    c.essay_a, a.file_name AS file_a, a.is_anchor AS is_anchor_a,
    c.essay_b, b.file_name AS file_b, b.is_anchor AS is_anchor_b,
    c.status, c.failure_reason, c.winner, c.winner_id, c.loser_id, c.confidence,
    c.justification, c.n_attempts, c.tokens_prompt, c.tokens_completion, c.cost_usd,
    c.started_at, c.completed_at
FROM comparisons c
JOIN comparison_pairs p USING (batch_id, comparison_id)
JOIN essays a ON a.batch_id = c.batch_id AND a.essay_id = c.essay_a
JOIN essays b ON b.batch_id = c.batch_id AND b.essay_id = c.essay_b
LEFT JOIN judges j ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id;

COMMENT ON VIEW v_comparisons IS 'One row per comparison that has ended, with both essays and the judge.';
COMMENT ON COLUMN v_comparisons.sequence IS 'counts from 1 within the batch, in the order planned';
COMMENT ON COLUMN v_comparisons.role IS 'why it was asked';
COMMENT ON COLUMN v_comparisons.essay_a IS 'the essay shown first';
COMMENT ON COLUMN v_comparisons.winner IS 'A, B or tie, in the order shown; empty for a failure';
COMMENT ON COLUMN v_comparisons.confidence IS 'the judge''s own, 1 to 5';
COMMENT ON COLUMN v_comparisons.justification IS 'the judge''s words, as they came: treat as foreign text';
COMMENT ON COLUMN v_comparisons.cost_usd IS 'US dollars, over all attempts';

CREATE VIEW v_positions AS
SELECT
    batch_id, essay_id,
    count(*) FILTER (is_a) AS n_shown_a,
    count(*) FILTER (NOT is_a) AS n_shown_b,
    abs(count(*) FILTER (is_a) - count(*) FILTER (NOT is_a)) / count(*) AS skew
FROM (
    SELECT batch_id, essay_a AS essay_id, TRUE AS is_a FROM comparison_pairs
    UNION ALL
    SELECT batch_id, essay_b, FALSE FROM comparison_pairs
)
GROUP BY batch_id, essay_id;

COMMENT ON VIEW v_positions IS 'How often each essay was shown first and second, over all planned comparisons.';
COMMENT ON COLUMN v_positions.skew IS '|A - B| / (A + B): 0 is fair, 1 is always the same side';

CREATE VIEW v_judges AS
SELECT
    j.batch_id, j.judge_id, j.name, j.provider, j.model, j.template, j.is_simulated,
    coalesce(c.n_succeeded, 0) AS n_succeeded,
    coalesce(c.n_failed, 0) AS n_failed,
    c.share_first, c.share_tied, c.mean_confidence,
    coalesce(c.cost_usd, 0) AS cost_usd
FROM judges j
LEFT JOIN (
    SELECT
        batch_id, judge_id,
        count(*) FILTER (status = 'succeeded') AS n_succeeded,
        count(*) FILTER (status = 'failed') AS n_failed,
        avg(CASE winner WHEN 'A' THEN 1.0 WHEN 'B' THEN 0.0 END) AS share_first,
        avg(CASE WHEN winner IS NOT NULL THEN (winner = 'tie')::DOUBLE END) AS share_tied,
        avg(confidence) AS mean_confidence,
        sum(cost_usd) AS cost_usd
    FROM comparisons GROUP BY batch_id, judge_id
) c USING (batch_id, judge_id);

COMMENT ON VIEW v_judges IS 'How each judge of a batch behaved.';
COMMENT ON COLUMN v_judges.judge_id IS 'fingerprint of model, template and settings';
COMMENT ON COLUMN v_judges.share_first IS 'share of decided comparisons won by the essay shown first: 0.5 is unbiased';
COMMENT ON COLUMN v_judges.share_tied IS 'share of verdicts that were ties';

CREATE VIEW v_costs AS
SELECT
    p.batch_id, p.wave, p.submission_key, j.name AS judge, p.provider, p.model, p.batching_mode,
    p.state, p.provider_job_id, p.n_requests,
    p.reserved_usd, p.billed_usd, a.tokens_prompt, a.tokens_cached, a.tokens_completion,
    p.intended_at, p.collected_at
FROM provider_jobs p
LEFT JOIN judges j USING (batch_id, judge_id)
LEFT JOIN (
    SELECT
        batch_id, submission_key,
        sum(tokens_prompt) AS tokens_prompt,
        sum(tokens_cached) AS tokens_cached,
        sum(tokens_completion) AS tokens_completion
    FROM attempts GROUP BY batch_id, submission_key
) a USING (batch_id, submission_key);

COMMENT ON VIEW v_costs IS 'One row per provider job: what was reserved before it left, and what it cost.';
COMMENT ON COLUMN v_costs.reserved_usd IS 'US dollars; the worst case, reserved before submission';
COMMENT ON COLUMN v_costs.billed_usd IS 'US dollars, from real usage; empty until the job is settled';
COMMENT ON COLUMN v_costs.tokens_cached IS 'prompt tokens that the provider had cached';

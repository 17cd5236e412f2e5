-- What each column of the assets' tables is, for whoever looks at them in Dagster or in a notebook.

COMMENT ON COLUMN essays.batch_id IS 'The batch, as its folder is named';
COMMENT ON COLUMN essays.essay_id IS 'Names the essay within its batch; from the file''s name or the table''s column';
COMMENT ON COLUMN essays.position IS 'The place in the batch, as handed in, from 1';
COMMENT ON COLUMN essays.text IS 'As handed in; only the encoding and line ends are made alike';
COMMENT ON COLUMN essays.grade IS 'Of an anchor, known beforehand; none for a student''s essay';
COMMENT ON COLUMN essays.is_anchor IS 'Whether the essay''s grade was known beforehand';
COMMENT ON COLUMN essays.source_path IS 'The file it was read from, relative to the batch folder';
COMMENT ON COLUMN essays.sha256 IS 'Of the file, or of the text where a table brought it';
COMMENT ON COLUMN essays.n_bytes IS 'Of the file, or of the text where a table brought it';

COMMENT ON COLUMN comparison_pairs.comparison_id IS 'Names the comparison in every table, and in the request';
COMMENT ON COLUMN comparison_pairs.batch_id IS 'The batch';
COMMENT ON COLUMN comparison_pairs.wave IS 'The comparisons sent out together before the next fit, from 1';
COMMENT ON COLUMN comparison_pairs.sequence IS 'Counts from 1 within the batch, in the order planned';
COMMENT ON COLUMN comparison_pairs.judge_id IS 'The fingerprint of the judge who is asked';
COMMENT ON COLUMN comparison_pairs.essay_a IS 'The essay shown first';
COMMENT ON COLUMN comparison_pairs.essay_b IS 'The essay shown second';
COMMENT ON COLUMN comparison_pairs.resampling_pass IS '0 while pairs are new, then how often pairs were gone over again';
COMMENT ON COLUMN comparison_pairs.planned_at IS 'When the wave was chosen';

COMMENT ON COLUMN provider_jobs.submission_key IS 'Names the job in our ledger before anything is sent';
COMMENT ON COLUMN provider_jobs.batch_id IS 'The batch';
COMMENT ON COLUMN provider_jobs.wave IS 'The wave whose requests it bears';
COMMENT ON COLUMN provider_jobs.provider IS 'The service the judge is reached through';
COMMENT ON COLUMN provider_jobs.model IS 'As the provider names it';
COMMENT ON COLUMN provider_jobs.batching_mode IS 'per_request, serial_bundle or provider_batch_api';
COMMENT ON COLUMN provider_jobs.account IS 'A fingerprint of the account; the key itself is kept nowhere';
COMMENT ON COLUMN provider_jobs.n_requests IS 'How many comparisons it asks for';
COMMENT ON COLUMN provider_jobs.provider_job_id IS 'What the provider calls it; none until it is made';
COMMENT ON COLUMN provider_jobs.submitted_at IS 'When the provider took it';
COMMENT ON COLUMN provider_jobs.ended_at IS 'When it ended, as the provider says';
COMMENT ON COLUMN provider_jobs.polled_at IS 'When it was last looked at';

COMMENT ON COLUMN comparisons.comparison_id IS 'As in comparison_pairs';
COMMENT ON COLUMN comparisons.batch_id IS 'The batch';
COMMENT ON COLUMN comparisons.wave IS 'The wave it was asked in';
COMMENT ON COLUMN comparisons.essay_a IS 'The essay shown first';
COMMENT ON COLUMN comparisons.essay_b IS 'The essay shown second';
COMMENT ON COLUMN comparisons.judge_id IS 'The fingerprint of the judge who was asked';
COMMENT ON COLUMN comparisons.status IS 'succeeded: there is a verdict; failed: for good, after every attempt it was allowed';
COMMENT ON COLUMN comparisons.failure_reason IS 'Of one that failed, the kind of its last failure';
COMMENT ON COLUMN comparisons.winner IS 'A, B or tie, in the order shown';
COMMENT ON COLUMN comparisons.confidence IS 'The judge''s own, from 1 to 5';
COMMENT ON COLUMN comparisons.justification IS 'What the judge gave as its reason';
COMMENT ON COLUMN comparisons.n_attempts IS 'How often it was asked';
COMMENT ON COLUMN comparisons.cost_usd IS 'US dollars, over all attempts';

COMMENT ON COLUMN essay_scores.batch_id IS 'The batch';
COMMENT ON COLUMN essay_scores.wave IS 'The wave after which these scores were fitted, by all verdicts up to it';
COMMENT ON COLUMN essay_scores.essay_id IS 'The essay, a student''s or an anchor';
COMMENT ON COLUMN essay_scores.score IS 'Logits, mean-centred within the batch: never compare across batches';
COMMENT ON COLUMN essay_scores.standard_error IS 'Logits, from the full information';
COMMENT ON COLUMN essay_scores.rank IS '1 is the highest score';
COMMENT ON COLUMN essay_scores.n_comparisons IS 'Verdicts about the essay';
COMMENT ON COLUMN essay_scores.n_wins IS 'A tie counts a half';
COMMENT ON COLUMN essay_scores.n_losses IS 'A tie counts a half';
COMMENT ON COLUMN essay_scores.n_shown_a IS 'How often it was shown first';
COMMENT ON COLUMN essay_scores.n_shown_b IS 'How often it was shown second';
COMMENT ON COLUMN essay_scores.is_one_sided IS 'It won or lost everything: how far out it lies rests on the prior';

COMMENT ON COLUMN wave_decisions.batch_id IS 'The batch';
COMMENT ON COLUMN wave_decisions.wave IS 'The wave after which it was decided';
COMMENT ON COLUMN wave_decisions.decision IS 'request_more_comparisons, resample, finalize_scoring or finalize_failure';
COMMENT ON COLUMN wave_decisions.reason IS 'Why the batch ended; none while it goes on';
COMMENT ON COLUMN wave_decisions.submitted IS 'Comparisons sent out so far; one asked again counts once';
COMMENT ON COLUMN wave_decisions.completed IS 'Those with a verdict';
COMMENT ON COLUMN wave_decisions.failed IS 'Those that failed for good';
COMMENT ON COLUMN wave_decisions.completion_denominator IS 'The comparisons at which the batch is at its end';
COMMENT ON COLUMN wave_decisions.max_score_change IS 'Logits, since the wave before; none after the first';
COMMENT ON COLUMN wave_decisions.details IS 'Precision, coverage and quality flags it was decided on';
COMMENT ON COLUMN wave_decisions.decided_at IS 'When';

COMMENT ON COLUMN grade_projections.batch_id IS 'The batch';
COMMENT ON COLUMN grade_projections.revision IS 'Counts gradings from 1; the highest is in force';
COMMENT ON COLUMN grade_projections.essay_id IS 'The essay, a student''s or an anchor';
COMMENT ON COLUMN grade_projections.scale IS 'The grade scale';
COMMENT ON COLUMN grade_projections.grade IS 'The most probable grade';
COMMENT ON COLUMN grade_projections.expected_grade IS 'The mean over the probabilities, in steps of the scale';
COMMENT ON COLUMN grade_projections.confidence IS 'From 0 to 1, the probability of the most probable grade';
COMMENT ON COLUMN grade_projections.probabilities IS 'Of every grade of the scale; they add up to 1';
COMMENT ON COLUMN grade_projections.primary_anchor_id IS 'The anchor whose score is nearest; for an anchor, another one';
COMMENT ON COLUMN grade_projections.is_extrapolated IS 'The essay scores outside all anchors';
COMMENT ON COLUMN grade_projections.is_anchor IS 'Whether the essay''s grade was known beforehand';
COMMENT ON COLUMN grade_projections.projected_at IS 'When it was graded';

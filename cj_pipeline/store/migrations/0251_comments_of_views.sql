-- What every column of every view is: nobody should have to guess from a name.

COMMENT ON COLUMN v_batch_costs.batch_id IS 'the batch';
COMMENT ON COLUMN v_batch_costs.n_jobs IS 'provider jobs';
COMMENT ON COLUMN v_batch_costs.n_requests IS 'comparisons requested in them';
COMMENT ON COLUMN v_batch_costs.estimated_usd IS 'US dollars expected before it left';
COMMENT ON COLUMN v_batch_costs.reserved_usd IS 'US dollars: the most it could cost, set aside before it left';
COMMENT ON COLUMN v_batch_costs.billed_usd IS 'US dollars, by the usage of the answers that came';
COMMENT ON COLUMN v_batch_costs.provider_usd IS 'US dollars by the provider''s own count, where it reports a total';
COMMENT ON COLUMN v_batch_costs.difference_usd IS 'provider_usd less billed_usd';

COMMENT ON COLUMN v_batches.batch_id IS 'the batch';
COMMENT ON COLUMN v_batches.title IS 'the batch''s title';
COMMENT ON COLUMN v_batches.runner_mode IS 'plan, dry-run or execute';
COMMENT ON COLUMN v_batches.created_at IS 'when it was taken into the store';
COMMENT ON COLUMN v_batches.ended_at IS 'when it ended; empty while it runs';

COMMENT ON COLUMN v_comparisons.batch_id IS 'the batch';
COMMENT ON COLUMN v_comparisons.comparison_id IS 'names the comparison in every table, and in the request';
COMMENT ON COLUMN v_comparisons.wave IS 'the wave, from 1';
COMMENT ON COLUMN v_comparisons.resampling_pass IS '0 while pairs are new, then how often pairs were gone over again';
COMMENT ON COLUMN v_comparisons.judge IS 'the judge''s name';
COMMENT ON COLUMN v_comparisons.model IS 'as the provider names it';
COMMENT ON COLUMN v_comparisons.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_comparisons.given_id_a IS 'the first essay as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_comparisons.file_a IS 'the file the first essay is from';
COMMENT ON COLUMN v_comparisons.is_anchor_a IS 'whether the first essay''s grade was known beforehand';
COMMENT ON COLUMN v_comparisons.essay_b IS 'the essay shown second';
COMMENT ON COLUMN v_comparisons.given_id_b IS 'the second, likewise';
COMMENT ON COLUMN v_comparisons.file_b IS 'the file the second is from';
COMMENT ON COLUMN v_comparisons.is_anchor_b IS 'whether the second''s was';
COMMENT ON COLUMN v_comparisons.status IS 'succeeded: there is a verdict; failed: for good; empty while it is open';
COMMENT ON COLUMN v_comparisons.failure_reason IS 'of one that failed, the kind of its last failure';
COMMENT ON COLUMN v_comparisons.winner_id IS 'the essay that won; tie for neither';
COMMENT ON COLUMN v_comparisons.loser_id IS 'the essay that lost; empty for a tie';
COMMENT ON COLUMN v_comparisons.n_attempts IS 'how often it was requested';
COMMENT ON COLUMN v_comparisons.tokens_prompt IS 'input tokens, over all attempts';
COMMENT ON COLUMN v_comparisons.tokens_completion IS 'output tokens, over all attempts';
COMMENT ON COLUMN v_comparisons.started_at IS 'when it was first requested';
COMMENT ON COLUMN v_comparisons.completed_at IS 'when it came to its end';

COMMENT ON COLUMN v_costs.batch_id IS 'the batch';
COMMENT ON COLUMN v_costs.wave IS 'the last wave whose requests it bears';
COMMENT ON COLUMN v_costs.submission_key IS 'names the provider job in our ledger before anything is sent';
COMMENT ON COLUMN v_costs.judge IS 'the judge''s name';
COMMENT ON COLUMN v_costs.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_costs.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_costs.model IS 'as the provider names it';
COMMENT ON COLUMN v_costs.batching_mode IS 'per_request, serial_bundle or provider_batch_api';
COMMENT ON COLUMN v_costs.state IS 'where the job is; see v_provider_jobs.state';
COMMENT ON COLUMN v_costs.provider_job_id IS 'what the provider calls it; empty until it is known';
COMMENT ON COLUMN v_costs.n_requests IS 'comparisons requested in it';
COMMENT ON COLUMN v_costs.tokens_prompt IS 'input tokens, over all attempts';
COMMENT ON COLUMN v_costs.tokens_completion IS 'output tokens, over all attempts';
COMMENT ON COLUMN v_costs.provider_tokens_prompt IS 'input tokens by the provider''s own count of the whole job';
COMMENT ON COLUMN v_costs.provider_tokens_cached IS 'of these, read from a cache';
COMMENT ON COLUMN v_costs.provider_tokens_completion IS 'output tokens by that count';
COMMENT ON COLUMN v_costs.intended_at IS 'when it was recorded, before anything was sent';
COMMENT ON COLUMN v_costs.collected_at IS 'when its rows were stored';

COMMENT ON COLUMN v_forecasts.batch_id IS 'the batch';
COMMENT ON COLUMN v_forecasts.wave IS 'the wave after which it was forecast';
COMMENT ON COLUMN v_forecasts.lower IS 'comparisons in all, lower end of the 80 % interval';
COMMENT ON COLUMN v_forecasts.upper IS 'comparisons in all, upper end';
COMMENT ON COLUMN v_forecasts.decided_at IS 'when it was decided';

COMMENT ON COLUMN v_given_grades.batch_id IS 'the batch';
COMMENT ON COLUMN v_given_grades.essay_id IS 'the student''s essay';
COMMENT ON COLUMN v_given_grades.confidence IS '0 to 1, the probability of the most probable grade';
COMMENT ON COLUMN v_given_grades.reason IS 'why, as the person wrote it';
COMMENT ON COLUMN v_given_grades.decided_by IS 'who decided';
COMMENT ON COLUMN v_given_grades.decided_at IS 'when it was decided';

COMMENT ON COLUMN v_grade_probabilities.batch_id IS 'the batch';
COMMENT ON COLUMN v_grade_probabilities.essay_id IS 'the essay; an anchor''s is by the other anchors';
COMMENT ON COLUMN v_grade_probabilities.revision IS 'the grading; grading again adds one';
COMMENT ON COLUMN v_grade_probabilities.scale IS 'the grade scale';
COMMENT ON COLUMN v_grade_probabilities.grade IS 'the grade';
COMMENT ON COLUMN v_grade_probabilities.probability IS 'from 0 to 1';

COMMENT ON COLUMN v_grades.batch_id IS 'the batch';
COMMENT ON COLUMN v_grades.essay_id IS 'the student''s essay';
COMMENT ON COLUMN v_grades.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_grades."group" IS 'the student''s groups, where given; kept from judges';
COMMENT ON COLUMN v_grades.file_name IS 'the file it is from';
COMMENT ON COLUMN v_grades.scale IS 'the grade scale';
COMMENT ON COLUMN v_grades.standard_error IS 'logits, from the full information';
COMMENT ON COLUMN v_grades.rank IS '1 is the highest score';
COMMENT ON COLUMN v_grades.projected_at IS 'when it was graded';

COMMENT ON COLUMN v_human_changes.batch_id IS 'the batch';

COMMENT ON COLUMN v_human_verdicts.batch_id IS 'the batch';
COMMENT ON COLUMN v_human_verdicts.number IS 'counts from 1 through the batch';
COMMENT ON COLUMN v_human_verdicts.source IS 'page or import';
COMMENT ON COLUMN v_human_verdicts.import_name IS 'the import it came with';
COMMENT ON COLUMN v_human_verdicts.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_human_verdicts.essay_a IS 'the essay shown first';
COMMENT ON COLUMN v_human_verdicts.essay_b IS 'the essay shown second';
COMMENT ON COLUMN v_human_verdicts.winner IS 'A, B or tie, in the order shown';
COMMENT ON COLUMN v_human_verdicts.is_repeat IS 'whether it shows a pair to the same person again, sides exchanged';
COMMENT ON COLUMN v_human_verdicts.decided_at IS 'when the person decided';
COMMENT ON COLUMN v_human_verdicts.stored_at IS 'when it was stored';

COMMENT ON COLUMN v_judge_costs.batch_id IS 'the batch';
COMMENT ON COLUMN v_judge_costs.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_judge_costs.judge IS 'the judge''s name';
COMMENT ON COLUMN v_judge_costs.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_judge_costs.model IS 'as the provider names it';
COMMENT ON COLUMN v_judge_costs.n_jobs IS 'provider jobs';
COMMENT ON COLUMN v_judge_costs.n_requests IS 'comparisons requested in them';
COMMENT ON COLUMN v_judge_costs.estimated_usd IS 'US dollars expected before it left';
COMMENT ON COLUMN v_judge_costs.reserved_usd IS 'US dollars: the most it could cost, set aside before it left';
COMMENT ON COLUMN v_judge_costs.billed_usd IS 'US dollars, by the usage of the answers that came';
COMMENT ON COLUMN v_judge_costs.possible_usd IS 'US dollars that may have been paid beyond the bill';

COMMENT ON COLUMN v_judge_holds.batch_id IS 'the batch';
COMMENT ON COLUMN v_judge_holds.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_judge_holds.waiting_for IS 'what is waited for, in one word';
COMMENT ON COLUMN v_judge_holds.reason IS 'what is wrong, in words';
COMMENT ON COLUMN v_judge_holds.sample IS 'the answer that brought it about';
COMMENT ON COLUMN v_judge_holds.n_answers IS 'answers without a verdict';
COMMENT ON COLUMN v_judge_holds.held_at IS 'since when';
COMMENT ON COLUMN v_judge_holds.next_try_at IS 'when it is tried again by itself; empty where a person is waited for';

COMMENT ON COLUMN v_judge_pairs.batch_id IS 'the batch';
COMMENT ON COLUMN v_judge_pairs.judge_one IS 'fingerprint of one judge';
COMMENT ON COLUMN v_judge_pairs.judge_other IS 'fingerprint of the other';

COMMENT ON COLUMN v_judges.batch_id IS 'the batch';
COMMENT ON COLUMN v_judges.name IS 'the judge''s name';
COMMENT ON COLUMN v_judges.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_judges.model IS 'as the provider names it';
COMMENT ON COLUMN v_judges.template IS 'the prompt''s name';
COMMENT ON COLUMN v_judges.is_simulated IS 'whether it is no real judge: then no verdict here means anything';
COMMENT ON COLUMN v_judges.n_succeeded IS 'comparisons with a verdict';
COMMENT ON COLUMN v_judges.n_failed IS 'comparisons that failed for good';
COMMENT ON COLUMN v_judges.mean_confidence IS 'the judge''s own, from 1 to 5';
COMMENT ON COLUMN v_judges.cost_usd IS 'US dollars, over all attempts of the ended comparisons';

COMMENT ON COLUMN v_judging_tasks.batch_id IS 'the batch';
COMMENT ON COLUMN v_judging_tasks.task_id IS 'names the pair given to people';
COMMENT ON COLUMN v_judging_tasks.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_judging_tasks.essay_a IS 'one essay of the pair, in no order';
COMMENT ON COLUMN v_judging_tasks.essay_b IS 'the other';
COMMENT ON COLUMN v_judging_tasks.reason IS 'why this pair, in words';
COMMENT ON COLUMN v_judging_tasks.place IS 'lower ones are handed out first';
COMMENT ON COLUMN v_judging_tasks.planned_at IS 'when it was chosen';
COMMENT ON COLUMN v_judging_tasks.n_skips IS 'how often people skipped it';

COMMENT ON COLUMN v_live_queue.batch_id IS 'the batch';
COMMENT ON COLUMN v_live_queue.judge_id IS 'the judge''s fingerprint';
COMMENT ON COLUMN v_live_queue.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_live_queue.model IS 'as the provider names it';
COMMENT ON COLUMN v_live_queue.batching_mode IS 'per_request, serial_bundle or provider_batch_api';
COMMENT ON COLUMN v_live_queue.longest_wait_s IS 'seconds from standing ready until sent, of the longest';
COMMENT ON COLUMN v_live_queue.mean_latency_s IS 'seconds from sent until answered';
COMMENT ON COLUMN v_live_queue.breaker_open_until IS 'until when the model is left alone after failures';

COMMENT ON COLUMN v_positions.batch_id IS 'the batch';
COMMENT ON COLUMN v_positions.essay_id IS 'the essay';
COMMENT ON COLUMN v_positions.n_shown_a IS 'how often it was shown first';
COMMENT ON COLUMN v_positions.n_shown_b IS 'how often it was shown second';

COMMENT ON COLUMN v_progress.batch_id IS 'the batch';
COMMENT ON COLUMN v_progress.wave IS 'the wave under way';
COMMENT ON COLUMN v_progress.recorded_at IS 'when';

COMMENT ON COLUMN v_provider_jobs.batch_id IS 'the batch';
COMMENT ON COLUMN v_provider_jobs.wave IS 'the last wave whose requests it bears';
COMMENT ON COLUMN v_provider_jobs.submission_key IS 'names the provider job in our ledger before anything is sent';
COMMENT ON COLUMN v_provider_jobs.provider IS 'the service the judge is reached through';
COMMENT ON COLUMN v_provider_jobs.model IS 'as the provider names it';
COMMENT ON COLUMN v_provider_jobs.batching_mode IS 'per_request, serial_bundle or provider_batch_api';
COMMENT ON COLUMN v_provider_jobs.provider_job_id IS 'what the provider calls it; empty until it is known';
COMMENT ON COLUMN v_provider_jobs.outcome IS 'how it ended; empty before';
COMMENT ON COLUMN v_provider_jobs.n_requests IS 'comparisons requested in it';
COMMENT ON COLUMN v_provider_jobs.n_completed IS 'requests answered, as the provider counts them';
COMMENT ON COLUMN v_provider_jobs.n_failed IS 'requests failed, as the provider counts them';
COMMENT ON COLUMN v_provider_jobs.reserved_usd IS 'US dollars: the most it could cost, set aside before it left';
COMMENT ON COLUMN v_provider_jobs.billed_usd IS 'US dollars, by the usage of the answers that came';
COMMENT ON COLUMN v_provider_jobs.intended_at IS 'when it was recorded, before anything was sent';
COMMENT ON COLUMN v_provider_jobs.submitted_at IS 'when the provider took it';
COMMENT ON COLUMN v_provider_jobs.ended_at IS 'when it ended';
COMMENT ON COLUMN v_provider_jobs.collected_at IS 'when its rows were stored';
COMMENT ON COLUMN v_provider_jobs.polled_at IS 'when it was last polled';
COMMENT ON COLUMN v_provider_jobs.next_poll_at IS 'when it is polled, or sent again, at the earliest';

COMMENT ON COLUMN v_release.batch_id IS 'the batch';

COMMENT ON COLUMN v_row_outcomes.batch_id IS 'the batch';
COMMENT ON COLUMN v_row_outcomes.wave IS 'the last wave whose requests it bears';
COMMENT ON COLUMN v_row_outcomes.submission_key IS 'names the provider job in our ledger before anything is sent';
COMMENT ON COLUMN v_row_outcomes.state IS 'where the job is; see v_provider_jobs.state';
COMMENT ON COLUMN v_row_outcomes.succeeded IS 'requests that brought a verdict';
COMMENT ON COLUMN v_row_outcomes.invalid_output IS 'answers that could not be read as a verdict';
COMMENT ON COLUMN v_row_outcomes.refusal IS 'answers in which the model declined';
COMMENT ON COLUMN v_row_outcomes.truncated IS 'answers cut at the limit of tokens';
COMMENT ON COLUMN v_row_outcomes.content_filter IS 'answers that the provider''s filter withheld';
COMMENT ON COLUMN v_row_outcomes.provider_error IS 'requests that the provider failed';
COMMENT ON COLUMN v_row_outcomes.expired IS 'requests that the provider did not get to in time';
COMMENT ON COLUMN v_row_outcomes.cancelled IS 'requests that were cancelled';

COMMENT ON COLUMN v_scores.batch_id IS 'the batch';
COMMENT ON COLUMN v_scores.essay_id IS 'the essay';
COMMENT ON COLUMN v_scores.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_scores."group" IS 'the student''s groups, where given; kept from judges';
COMMENT ON COLUMN v_scores.file_name IS 'the file it is from';
COMMENT ON COLUMN v_scores.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_scores.wave IS 'the wave after which it was fitted: the last one';
COMMENT ON COLUMN v_scores.n_comparisons IS 'verdicts about the essay';
COMMENT ON COLUMN v_scores.n_losses IS 'a tie counts a half';

COMMENT ON COLUMN v_waves.batch_id IS 'the batch';
COMMENT ON COLUMN v_waves.n_succeeded IS 'comparisons with a verdict';
COMMENT ON COLUMN v_waves.n_failed IS 'comparisons that failed for good';
COMMENT ON COLUMN v_waves.reason IS 'why the batch ended; empty while it goes on';
COMMENT ON COLUMN v_waves.planned_at IS 'when the wave''s pairs were chosen';
COMMENT ON COLUMN v_waves.decided_at IS 'when it was decided';

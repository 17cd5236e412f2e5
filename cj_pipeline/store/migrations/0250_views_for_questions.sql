-- A view for each question that analysts have asked of tables: how sure is the scale, where does an
-- essay stand, what did earlier gradings say, how far do people and models agree.

CREATE VIEW v_reliability AS
SELECT
    batch_id,
    CAST(statistics->>'$.student_reliability.value' AS DOUBLE) AS reliability,
    CAST(statistics->>'$.student_reliability.lower' AS DOUBLE) AS reliability_lower,
    CAST(statistics->>'$.student_reliability.upper' AS DOUBLE) AS reliability_upper,
    CAST(statistics->>'$.student_reliability.n_students' AS BIGINT) AS n_students,
    CAST(statistics->>'$.student_reliability.is_worth_a_figure' AS BOOLEAN) AS is_worth_a_figure,
    CAST(statistics->>'$.student_reliability.cannot_be_told_apart' AS BOOLEAN)
        AS cannot_be_told_apart,
    CAST(statistics->>'$.student_reliability.true_sd' AS DOUBLE) AS true_sd,
    CAST(statistics->>'$.empirical_bayes_with_anchors.reliability' AS DOUBLE)
        AS reliability_with_anchors,
    CAST(statistics->>'$.split_half_by_comparisons.stepped_up' AS DOUBLE) AS split_half,
    CAST(statistics->>'$.scale_separation_reliability' AS DOUBLE) AS scale_separation_reliability,
    CAST(statistics->>'$.transitivity.share' AS DOUBLE) AS share_circular,
    CAST(statistics->>'$.effective_comparisons.mean' AS DOUBLE) AS effective_comparisons,
    computed_at
FROM scale_statistics;

COMMENT ON VIEW v_reliability IS 'One row per ended batch: how well its scores tell the students apart, the honest figure first.';
COMMENT ON COLUMN v_reliability.batch_id IS 'the batch';
COMMENT ON COLUMN v_reliability.reliability IS 'share of the variance of the students'' scores that is not error, from 0 to 1: the figure to report';
COMMENT ON COLUMN v_reliability.reliability_lower IS 'lower end of its 95 % interval';
COMMENT ON COLUMN v_reliability.reliability_upper IS 'upper end of its 95 % interval';
COMMENT ON COLUMN v_reliability.n_students IS 'students it is about';
COMMENT ON COLUMN v_reliability.is_worth_a_figure IS 'whether there are enough students for the figure to mean something';
COMMENT ON COLUMN v_reliability.cannot_be_told_apart IS 'whether the students may all be alike, for all that the verdicts tell';
COMMENT ON COLUMN v_reliability.true_sd IS 'logits; estimated standard deviation of the students'' true scores';
COMMENT ON COLUMN v_reliability.reliability_with_anchors IS 'the same over students and anchors; anchors are spread on purpose, so it is higher';
COMMENT ON COLUMN v_reliability.split_half IS 'from random halves of the verdicts, stepped up to their whole number';
COMMENT ON COLUMN v_reliability.scale_separation_reliability IS 'the usual formula; too high where pairs were chosen by score';
COMMENT ON COLUMN v_reliability.share_circular IS 'share of triples of essays of which each beat the next';
COMMENT ON COLUMN v_reliability.effective_comparisons IS 'verdicts an essay has, counted for what they tell about it';
COMMENT ON COLUMN v_reliability.computed_at IS 'when';

CREATE VIEW v_ranks AS
SELECT
    r.batch_id, r.essay_id, e.given_id, e.name, e.is_anchor, r.rank, r.rank_lower, r.rank_upper,
    r.student_rank, r.student_rank_lower, r.student_rank_upper, r.p_above_next
FROM essay_ranks r JOIN essays e USING (batch_id, essay_id);

COMMENT ON VIEW v_ranks IS 'One row per essay of an ended batch: its rank, and between which ranks it truly is.';
COMMENT ON COLUMN v_ranks.batch_id IS 'the batch';
COMMENT ON COLUMN v_ranks.essay_id IS 'the essay';
COMMENT ON COLUMN v_ranks.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_ranks.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_ranks.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_ranks.rank IS 'among all essays; equal scores share the better one';
COMMENT ON COLUMN v_ranks.rank_lower IS 'best rank within the 95 % interval';
COMMENT ON COLUMN v_ranks.rank_upper IS 'worst rank within it';
COMMENT ON COLUMN v_ranks.student_rank IS 'among the students'' essays; empty for anchors';
COMMENT ON COLUMN v_ranks.student_rank_lower IS 'best of these ranks within the 95 % interval';
COMMENT ON COLUMN v_ranks.student_rank_upper IS 'worst of them';
COMMENT ON COLUMN v_ranks.p_above_next IS 'probability that a student truly is above the next one';

CREATE VIEW v_gradings AS
WITH changed AS (
    SELECT batch_id, revision, essay_id, is_anchor, grade,
           lag(grade) OVER (PARTITION BY batch_id, essay_id ORDER BY revision) AS grade_before
    FROM grade_projections
),
counted AS (
    SELECT batch_id, revision, count(*) FILTER (NOT is_anchor) AS n_students,
           count(*) FILTER (NOT is_anchor AND grade_before <> grade) AS n_changed
    FROM changed GROUP BY batch_id, revision
),
latest AS (
    SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id
)
SELECT
    g.batch_id, g.revision, g.revision = l.revision AS is_in_force, g.scale, g.is_graded,
    coalesce(c.n_students, 0) AS n_students, coalesce(c.n_changed, 0) AS n_changed,
    g.statement, g.projected_at
FROM grading_reports g
JOIN latest l ON l.batch_id = g.batch_id
LEFT JOIN counted c ON c.batch_id = g.batch_id AND c.revision = g.revision;

COMMENT ON VIEW v_gradings IS 'One row per grading of a batch, earlier ones too: nothing is overwritten.';
COMMENT ON COLUMN v_gradings.batch_id IS 'the batch';
COMMENT ON COLUMN v_gradings.revision IS 'counts gradings from 1';
COMMENT ON COLUMN v_gradings.is_in_force IS 'whether it is the last one';
COMMENT ON COLUMN v_gradings.scale IS 'the grade scale; empty without one';
COMMENT ON COLUMN v_gradings.is_graded IS 'whether the anchors could carry grades';
COMMENT ON COLUMN v_gradings.n_students IS 'students it graded';
COMMENT ON COLUMN v_gradings.n_changed IS 'of these, with another grade than in the grading before';
COMMENT ON COLUMN v_gradings.statement IS 'why it graded or did not, in words';
COMMENT ON COLUMN v_gradings.projected_at IS 'when';

CREATE VIEW v_grade_history AS
SELECT
    g.batch_id, g.essay_id, e.given_id, e.name, g.revision, g.scale, g.grade, g.fine_grade,
    g.confidence, g.expected_grade,
    lag(g.grade) OVER (PARTITION BY g.batch_id, g.essay_id ORDER BY g.revision) AS grade_before,
    g.projected_at
FROM grade_projections g JOIN essays e USING (batch_id, essay_id)
WHERE NOT g.is_anchor;

COMMENT ON VIEW v_grade_history IS 'One row per student and grading, earlier ones too; v_grades has the last.';
COMMENT ON COLUMN v_grade_history.batch_id IS 'the batch';
COMMENT ON COLUMN v_grade_history.essay_id IS 'the student''s essay';
COMMENT ON COLUMN v_grade_history.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_grade_history.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_grade_history.revision IS 'counts gradings from 1';
COMMENT ON COLUMN v_grade_history.scale IS 'the grade scale';
COMMENT ON COLUMN v_grade_history.grade IS 'the most probable grade';
COMMENT ON COLUMN v_grade_history.fine_grade IS 'the same with its minus or plus, where the scale has them';
COMMENT ON COLUMN v_grade_history.confidence IS '0 to 1, its probability';
COMMENT ON COLUMN v_grade_history.expected_grade IS 'mean step of the scale under the probabilities; the lowest grade is 0';
COMMENT ON COLUMN v_grade_history.grade_before IS 'in the grading before; empty in the first';
COMMENT ON COLUMN v_grade_history.projected_at IS 'when';

CREATE VIEW v_boundaries AS
SELECT
    b.batch_id, b.revision, b.revision = l.revision AS is_in_force, b.scale, b.position, b.below,
    b.above, b.boundary, b.standard_error, b.lower, b.upper
FROM grade_boundaries b
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) l
    ON l.batch_id = b.batch_id;

COMMENT ON VIEW v_boundaries IS 'One row per boundary between two grades, of each grading.';
COMMENT ON COLUMN v_boundaries.batch_id IS 'the batch';
COMMENT ON COLUMN v_boundaries.revision IS 'the grading';
COMMENT ON COLUMN v_boundaries.is_in_force IS 'whether that grading is the last one';
COMMENT ON COLUMN v_boundaries.scale IS 'the grade scale';
COMMENT ON COLUMN v_boundaries.position IS 'counts boundaries from the lowest, from 1';
COMMENT ON COLUMN v_boundaries.below IS 'the grade below it';
COMMENT ON COLUMN v_boundaries.above IS 'the grade above it';
COMMENT ON COLUMN v_boundaries.boundary IS 'logits';
COMMENT ON COLUMN v_boundaries.standard_error IS 'logits';
COMMENT ON COLUMN v_boundaries.lower IS 'logits; lower end of its 95 % interval';
COMMENT ON COLUMN v_boundaries.upper IS 'logits; upper end of its 95 % interval';

CREATE VIEW v_near_boundary AS
WITH likely AS (
    SELECT batch_id, essay_id, grade, probability,
           row_number() OVER (PARTITION BY batch_id, essay_id ORDER BY probability DESC) AS place
    FROM v_grade_probabilities WHERE NOT is_anchor
),
apart AS (
    SELECT
        g.batch_id, g.essay_id, b.below, b.above, b.boundary,
        coalesce(g.placed_score, g.score) - b.boundary AS distance,
        sqrt(g.standard_error * g.standard_error + b.standard_error * b.standard_error)
            AS standard_error,
        row_number() OVER (
            PARTITION BY g.batch_id, g.essay_id
            ORDER BY abs(coalesce(g.placed_score, g.score) - b.boundary)
        ) AS place
    FROM v_grades g JOIN v_boundaries b ON b.batch_id = g.batch_id AND b.revision = g.revision
)
SELECT
    g.batch_id, g.essay_id, g.given_id, g.name, g.grade, g.confidence, l.grade AS second_grade,
    l.probability AS second_probability, a.below, a.above, a.boundary, a.distance,
    a.standard_error, abs(a.distance) < a.standard_error AS is_near
FROM v_grades g
JOIN apart a ON a.batch_id = g.batch_id AND a.essay_id = g.essay_id AND a.place = 1
LEFT JOIN likely l ON l.batch_id = g.batch_id AND l.essay_id = g.essay_id AND l.place = 2;

COMMENT ON VIEW v_near_boundary IS 'One row per graded student: the nearest boundary between two grades, and how far it is.';
COMMENT ON COLUMN v_near_boundary.batch_id IS 'the batch';
COMMENT ON COLUMN v_near_boundary.essay_id IS 'the student''s essay';
COMMENT ON COLUMN v_near_boundary.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_near_boundary.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_near_boundary.grade IS 'the most probable grade';
COMMENT ON COLUMN v_near_boundary.confidence IS '0 to 1, its probability';
COMMENT ON COLUMN v_near_boundary.second_grade IS 'the grade that is most probable after it';
COMMENT ON COLUMN v_near_boundary.second_probability IS '0 to 1, the probability of that one';
COMMENT ON COLUMN v_near_boundary.below IS 'the grade below the nearest boundary';
COMMENT ON COLUMN v_near_boundary.above IS 'the grade above it';
COMMENT ON COLUMN v_near_boundary.boundary IS 'logits; where that boundary is';
COMMENT ON COLUMN v_near_boundary.distance IS 'logits from the boundary to where the grade was read; negative below it';
COMMENT ON COLUMN v_near_boundary.standard_error IS 'logits; of that distance, the boundary''s own error included';
COMMENT ON COLUMN v_near_boundary.is_near IS 'whether the distance is less than its standard error';

CREATE VIEW v_linked_scores AS
SELECT
    s.batch_id, s.essay_id, e.given_id, e.name, e.is_anchor, s.revision,
    s.revision = l.revision AS is_in_force, s.scale_batch_id, s.score, s.standard_error
FROM linked_scores s
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) l
    ON l.batch_id = s.batch_id
JOIN essays e ON e.batch_id = s.batch_id AND e.essay_id = s.essay_id;

COMMENT ON VIEW v_linked_scores IS 'One row per essay of a linked batch and grading: its score on the scale of the batch it is linked to. These may be compared across batches.';
COMMENT ON COLUMN v_linked_scores.batch_id IS 'the batch';
COMMENT ON COLUMN v_linked_scores.essay_id IS 'the essay';
COMMENT ON COLUMN v_linked_scores.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_linked_scores.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_linked_scores.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_linked_scores.revision IS 'the grading that placed it';
COMMENT ON COLUMN v_linked_scores.is_in_force IS 'whether that grading is the last one';
COMMENT ON COLUMN v_linked_scores.scale_batch_id IS 'the batch whose zero it is';
COMMENT ON COLUMN v_linked_scores.score IS 'logits, on that batch''s scale';
COMMENT ON COLUMN v_linked_scores.standard_error IS 'logits, the link''s own error included';

CREATE VIEW v_drifts AS
SELECT
    d.batch_id, d.revision, d.revision = l.revision AS is_in_force, b.onto_batch_id,
    b.placed_batch_id, d.essay_id, d.earlier_score, d.later_score, d.drift, d.standard_error,
    d.is_drifted
FROM anchor_drifts d
JOIN batch_links b ON b.batch_id = d.batch_id AND b.revision = d.revision
    AND b.position = d.position
JOIN (SELECT batch_id, max(revision) AS revision FROM grading_reports GROUP BY batch_id) l
    ON l.batch_id = d.batch_id;

COMMENT ON VIEW v_drifts IS 'One row per shared anchor of a link between two batches: whether it moved against the others.';
COMMENT ON COLUMN v_drifts.batch_id IS 'the linked batch';
COMMENT ON COLUMN v_drifts.revision IS 'the grading that linked it';
COMMENT ON COLUMN v_drifts.is_in_force IS 'whether that grading is the last one';
COMMENT ON COLUMN v_drifts.onto_batch_id IS 'the batch whose scale the link leads to';
COMMENT ON COLUMN v_drifts.placed_batch_id IS 'the batch that this link placed there';
COMMENT ON COLUMN v_drifts.essay_id IS 'the anchor';
COMMENT ON COLUMN v_drifts.earlier_score IS 'logits, on the scale linked to';
COMMENT ON COLUMN v_drifts.later_score IS 'logits, on the same scale, by the later verdicts';
COMMENT ON COLUMN v_drifts.drift IS 'logits, against the other anchors; positive where it is seen as better now';
COMMENT ON COLUMN v_drifts.standard_error IS 'logits; of the drift';
COMMENT ON COLUMN v_drifts.is_drifted IS 'whether it moved beyond chance, and was left out of the link';

CREATE VIEW v_texts AS
SELECT
    batch_id, essay_id, given_id, name, "group", is_anchor, grade, text,
    coalesce(masked_text, text) AS shown_text,
    len(string_split_regex(trim(text), '\s+')) AS n_words, length(text) AS n_characters, sha256
FROM essays;

COMMENT ON VIEW v_texts IS 'One row per essay with its text, as submitted and as judges read it.';
COMMENT ON COLUMN v_texts.batch_id IS 'the batch';
COMMENT ON COLUMN v_texts.essay_id IS 'the essay';
COMMENT ON COLUMN v_texts.given_id IS 'as it was named when submitted, where that is no id';
COMMENT ON COLUMN v_texts.name IS 'the student''s name, where one was given';
COMMENT ON COLUMN v_texts."group" IS 'the student''s groups, where given; kept from judges';
COMMENT ON COLUMN v_texts.is_anchor IS 'whether its grade was known beforehand';
COMMENT ON COLUMN v_texts.grade IS 'of an anchor, known beforehand';
COMMENT ON COLUMN v_texts.text IS 'as submitted; only the encoding and line ends are made alike';
COMMENT ON COLUMN v_texts.shown_text IS 'what judges read: names masked where that was asked for';
COMMENT ON COLUMN v_texts.n_words IS 'words of the text, parted by spaces and line ends';
COMMENT ON COLUMN v_texts.n_characters IS 'characters of the text';
COMMENT ON COLUMN v_texts.sha256 IS 'of the file, or of the text where a table brought it';

CREATE VIEW v_agreement AS
WITH people AS (
    SELECT batch_id, least(essay_a, essay_b) AS one, greatest(essay_a, essay_b) AS other,
           winner_id, number, part IN ('random', 'second') AS is_drawn,
           row_number() OVER (
               PARTITION BY batch_id, least(essay_a, essay_b), greatest(essay_a, essay_b)
               ORDER BY number
           ) AS place
    FROM v_human_verdicts
    WHERE comparison_id IS NOT NULL AND withdrawn_at IS NULL AND NOT is_replaced
      AND winner <> 'tie'
),
settled AS (
    SELECT batch_id, one, other, count(*) FILTER (winner_id = other) * 2 > count(*) AS names_other,
           bool_or(coalesce(is_drawn, FALSE)) AS is_drawn
    FROM people GROUP BY batch_id, one, other
    HAVING count(*) FILTER (winner_id = other) * 2 <> count(*)
),
models AS (
    SELECT c.batch_id, j.name AS judge, c.judge_id, least(c.essay_a, c.essay_b) AS one,
           greatest(c.essay_a, c.essay_b) AS other,
           count(*) FILTER (c.winner_id = greatest(c.essay_a, c.essay_b)) * 2 > count(*)
               AS names_other
    FROM comparisons c JOIN judges j ON j.batch_id = c.batch_id AND j.judge_id = c.judge_id
    WHERE c.status = 'succeeded' AND c.winner <> 'tie' AND j.provider <> 'human'
    GROUP BY c.batch_id, j.name, c.judge_id, least(c.essay_a, c.essay_b),
             greatest(c.essay_a, c.essay_b)
    HAVING count(*) FILTER (c.winner_id = greatest(c.essay_a, c.essay_b)) * 2 <> count(*)
),
shared AS (
    SELECT m.batch_id, m.judge, m.judge_id, m.names_other AS by_model,
           s.names_other AS by_people, s.is_drawn
    FROM models m JOIN settled s
        ON s.batch_id = m.batch_id AND s.one = m.one AND s.other = m.other
    UNION ALL
    SELECT a.batch_id, 'people', 'people', a.winner_id = a.other, b.winner_id = b.other,
           coalesce(a.is_drawn, FALSE) OR coalesce(b.is_drawn, FALSE)
    FROM people a JOIN people b
        ON b.batch_id = a.batch_id AND b.one = a.one AND b.other = a.other
    WHERE a.place = 1 AND b.place = 2
),
counted AS (
    SELECT batch_id, judge, judge_id, is_random, count(*) AS n,
           avg(CASE WHEN by_model = by_people THEN 1.0 ELSE 0.0 END) AS share,
           avg(CASE WHEN by_model THEN 1.0 ELSE 0.0 END) AS p_model,
           avg(CASE WHEN by_people THEN 1.0 ELSE 0.0 END) AS p_people
    FROM (
        SELECT *, FALSE AS is_random FROM shared
        UNION ALL
        SELECT *, TRUE AS is_random FROM shared WHERE is_drawn
    )
    GROUP BY batch_id, judge, judge_id, is_random
)
SELECT batch_id, judge, judge_id, is_random, n AS n_pairs, share AS agreement,
       CASE WHEN p_model * p_people + (1 - p_model) * (1 - p_people) < 1
            THEN (share - (p_model * p_people + (1 - p_model) * (1 - p_people)))
                 / (1 - (p_model * p_people + (1 - p_model) * (1 - p_people)))
       END AS kappa
FROM counted;

COMMENT ON VIEW v_agreement IS 'One row per batch and model: how often people and the model name the same winner; `judge` is people for people with each other. Ties are left out.';
COMMENT ON COLUMN v_agreement.batch_id IS 'the batch';
COMMENT ON COLUMN v_agreement.judge IS 'the model''s judge, or people';
COMMENT ON COLUMN v_agreement.judge_id IS 'its fingerprint, or people';
COMMENT ON COLUMN v_agreement.is_random IS 'TRUE: on pairs drawn at random, which is unbiased; FALSE: on all pairs that both judged, where those picked for doubt make it look worse';
COMMENT ON COLUMN v_agreement.n_pairs IS 'pairs that both judged';
COMMENT ON COLUMN v_agreement.agreement IS 'share of these with the same winner, from 0 to 1';
COMMENT ON COLUMN v_agreement.kappa IS 'Cohen''s: agreement beyond what chance would give; empty where chance alone would give all';

-- A grading keeps the anchors' grades it went by, so that grading again loses no history.
ALTER TABLE grading_reports ADD COLUMN anchor_grades JSON;
COMMENT ON COLUMN grading_reports.anchor_grades IS 'Grade of each anchor as this grading took it';

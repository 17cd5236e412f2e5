-- Published files are recorded by their names below the folder of published files, so that another
-- machine, or a home that was moved, finds them.
UPDATE run_artefact SET path = batch_id || '/' || regexp_extract(path, '[^/\\]+$');
UPDATE batch_report SET path = batch_id || '/' || regexp_extract(path, '[^/\\]+$');
COMMENT ON COLUMN run_artefact.path IS 'BATCH/FILE, below the folder of published files';
COMMENT ON COLUMN batch_report.path IS 'BATCH/FILE, below the folder of published files';

-- A judge that gave no verdict may be changed while its batch waits: what the earlier one was paid for stays its own.
ALTER TABLE judges ADD COLUMN replaced_at TIMESTAMPTZ;
COMMENT ON COLUMN judges.replaced_at IS 'When another judge of the same name took its open comparisons; null while it judges';

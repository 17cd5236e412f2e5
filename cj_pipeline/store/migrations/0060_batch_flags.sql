-- Four facts that later steps act on, as columns; until now they stood in `metadata`.
-- The default is a word because DuckLake takes no other for a boolean.
ALTER TABLE batches ADD COLUMN cancel_requested BOOLEAN DEFAULT 'false';
ALTER TABLE batches ADD COLUMN spend_cap_reached BOOLEAN DEFAULT 'false';
ALTER TABLE batches ADD COLUMN canary_failed BOOLEAN DEFAULT 'false';
ALTER TABLE batches ADD COLUMN nothing_left_to_ask BOOLEAN DEFAULT 'false';

UPDATE batches SET
    cancel_requested = coalesce(metadata->>'cancel_requested' = 'true', FALSE),
    spend_cap_reached = coalesce(metadata->>'spend_cap_reached' = 'true', FALSE),
    canary_failed = coalesce(metadata->>'canary_failed' = 'true', FALSE),
    nothing_left_to_ask = coalesce(metadata->>'nothing_left_to_ask' = 'true', FALSE),
    metadata = json_merge_patch(
        metadata,
        '{"cancel_requested": null, "spend_cap_reached": null,
          "canary_failed": null, "nothing_left_to_ask": null}'
    );

COMMENT ON COLUMN batches.cancel_requested IS 'whether a person has asked for its end: then nothing more is sent';
COMMENT ON COLUMN batches.spend_cap_reached IS 'whether a wave was refused because it might cost more than the cap';
COMMENT ON COLUMN batches.canary_failed IS 'whether a judge gave no verdict in the requests sent ahead';
COMMENT ON COLUMN batches.nothing_left_to_ask IS 'whether planning found no pair for another wave';

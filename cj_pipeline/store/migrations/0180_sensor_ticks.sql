-- Whether Dagster's daemon and each of its sensors still tick: nothing else tells when they do not.
CREATE TABLE sensor_ticks (
    sensor    VARCHAR NOT NULL PRIMARY KEY,
    ticked_at TIMESTAMPTZ NOT NULL
);

COMMENT ON TABLE sensor_ticks IS 'One row per sensor of Dagster that has ever come to the end of a tick.';
COMMENT ON COLUMN sensor_ticks.sensor IS 'the sensor''s name';
COMMENT ON COLUMN sensor_ticks.ticked_at IS 'when one of its ticks last ended without an error; written once a minute at most';

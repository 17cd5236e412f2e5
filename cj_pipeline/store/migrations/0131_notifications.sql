-- Who is told what: written before it is sent, so that nothing is forgotten and nothing is sent twice.
CREATE TABLE notifications (
    notification_id VARCHAR NOT NULL PRIMARY KEY,
    batch_id        VARCHAR NOT NULL,
    kind            VARCHAR NOT NULL,
    body            JSON NOT NULL,
    state           VARCHAR NOT NULL,
    n_tries         INTEGER NOT NULL,
    error           VARCHAR,
    recorded_at     TIMESTAMPTZ NOT NULL,
    next_try_at     TIMESTAMPTZ,
    sent_at         TIMESTAMPTZ
);

CREATE TABLE notification_addresses (
    address     VARCHAR NOT NULL PRIMARY KEY,
    since       TIMESTAMPTZ NOT NULL
);

COMMENT ON TABLE notifications IS 'One row per event and address: what was told, or is still to be told.';
COMMENT ON COLUMN notifications.notification_id IS 'the event and a fingerprint of the address; receivers know a repetition by it';
COMMENT ON COLUMN notifications.batch_id IS 'the batch it is about';
COMMENT ON COLUMN notifications.kind IS 'ended, rejected, graded, waiting or checkpoint';
COMMENT ON COLUMN notifications.body IS 'what is sent, without any text of an essay or a judge';
COMMENT ON COLUMN notifications.state IS 'pending, sending, sent or given_up';
COMMENT ON COLUMN notifications.n_tries IS 'how often it was tried';
COMMENT ON COLUMN notifications.error IS 'why the last try failed';
COMMENT ON COLUMN notifications.recorded_at IS 'when it was noticed';
COMMENT ON COLUMN notifications.next_try_at IS 'when it is tried at the earliest';
COMMENT ON COLUMN notifications.sent_at IS 'when the receiver took it';
COMMENT ON TABLE notification_addresses IS 'Since when an address is told: what happened before it was set is not sent to it.';
COMMENT ON COLUMN notification_addresses.address IS 'a fingerprint of the address';
COMMENT ON COLUMN notification_addresses.since IS 'when it was first seen';

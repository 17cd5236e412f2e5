-- Verified webhooks that were taken, so that one delivered again does nothing again.
CREATE TABLE webhooks (
    provider            VARCHAR NOT NULL,
    webhook_id          VARCHAR NOT NULL,  -- the provider's, one per event however often delivered
    kind                VARCHAR NOT NULL,
    n_jobs              INTEGER NOT NULL,  -- provider jobs that were polled sooner for it
    received_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (provider, webhook_id)
);

-- What happened, as the registry read it off the stream; webhooks; and what an event of ours follows from.

ALTER TABLE outbox ADD COLUMN causation_id varchar(64);

-- The history behind the event API, the live stream and webhooks. Rows are inserted under one advisory lock, so that the
-- order of `sequence` is the order of commits: whoever has read up to N never finds a new row below N.
CREATE TABLE event_log (
    sequence          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id          varchar(64) NOT NULL UNIQUE,
    type              varchar(128) NOT NULL,
    -- The type without its version, which is also the NATS subject.
    topic             varchar(128) NOT NULL,
    subject           varchar(256) NOT NULL,
    source            varchar(256) NOT NULL,
    time              timestamptz NOT NULL,
    aggregate_version bigint NOT NULL DEFAULT 0,
    correlation_id    varchar(128),
    causation_id      varchar(128),
    traceparent       varchar(128),
    model_id          varchar(64),
    replica_id        varchar(128),
    key_id            varchar(64),
    -- Set for progress, of which only the last one in each window is kept.
    progress          varchar(512),
    data              jsonb NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_event_log_topic ON event_log (topic, sequence);
CREATE INDEX idx_event_log_model ON event_log (model_id, sequence) WHERE model_id IS NOT NULL;
CREATE INDEX idx_event_log_replica ON event_log (replica_id, sequence) WHERE replica_id IS NOT NULL;
CREATE INDEX idx_event_log_key ON event_log (key_id, sequence) WHERE key_id IS NOT NULL;
CREATE INDEX idx_event_log_correlation ON event_log (correlation_id, sequence) WHERE correlation_id IS NOT NULL;
CREATE INDEX idx_event_log_progress ON event_log (progress, time) WHERE progress IS NOT NULL;
CREATE INDEX idx_event_log_time ON event_log (time);
CREATE INDEX idx_event_log_recorded ON event_log USING brin (recorded_at);

-- Up to which sequence rows were deleted because of their age or number.
CREATE TABLE event_log_pruned (
    one     boolean PRIMARY KEY DEFAULT TRUE CHECK (one),
    through bigint NOT NULL DEFAULT 0
);
INSERT INTO event_log_pruned DEFAULT VALUES;

CREATE TABLE webhooks (
    id              uuid PRIMARY KEY,
    version         bigint NOT NULL DEFAULT 1,
    name            varchar(128) NOT NULL,
    url             varchar(2048) NOT NULL,
    events          text[] NOT NULL,
    enabled         boolean NOT NULL DEFAULT TRUE,
    -- Why Cortex itself stopped sending; NULL when an administrator did.
    disabled_reason varchar(512),
    secret_sealed   text NOT NULL,
    -- Signs beside the present secret until then.
    previous_secret_sealed text,
    previous_until  timestamptz,
    created_by      varchar(128) NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- What the dispatcher knows of an endpoint; apart from the row above, whose version administrators see.
CREATE TABLE webhook_state (
    webhook_id      uuid PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
    -- Events up to here have become deliveries, or did not match.
    cursor          bigint NOT NULL,
    failing_since   timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    paused_until    timestamptz,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_error      varchar(512)
);

CREATE TABLE webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id      uuid NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    kind            varchar(16) NOT NULL CHECK (kind IN ('event', 'redelivery', 'test')),
    -- NULL for a test, which is no event.
    sequence        bigint,
    event_id        varchar(64) NOT NULL,
    event_type      varchar(128) NOT NULL,
    status          varchar(16) NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'cancelled')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    last_status     integer,
    last_error      varchar(512)
);
CREATE UNIQUE INDEX webhook_deliveries_event_key ON webhook_deliveries (webhook_id, sequence) WHERE kind = 'event';
CREATE INDEX idx_webhook_deliveries_log ON webhook_deliveries (webhook_id, id DESC);
CREATE INDEX idx_webhook_deliveries_due ON webhook_deliveries (webhook_id, id) WHERE status = 'pending';
CREATE INDEX idx_webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE webhook_attempts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    at          timestamptz NOT NULL,
    status      integer,
    duration_ms float NOT NULL,
    error       varchar(512)
);
CREATE INDEX idx_webhook_attempts_delivery ON webhook_attempts (delivery_id, id);

CREATE INDEX idx_audit_action ON audit (action, id DESC);
CREATE INDEX idx_audit_request ON audit (request_id) WHERE request_id IS NOT NULL;

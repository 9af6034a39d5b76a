-- Backups and restores as jobs, and creates that stay done when their registry dies before it has answered.

-- One line per export or restore. The rows of this table belong to this installation: no backup holds them.
CREATE TABLE deployment_jobs (
    id               uuid PRIMARY KEY,
    kind             varchar(16) NOT NULL CHECK (kind IN ('export', 'restore')),
    status           varchar(16) NOT NULL DEFAULT 'queued'
                     CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    folder           varchar(128) NOT NULL,
    options          jsonb NOT NULL,
    step             varchar(256) NOT NULL DEFAULT '',
    done_bytes       bigint NOT NULL DEFAULT 0,
    total_bytes      bigint,
    result           jsonb,
    error_code       varchar(64),
    error            varchar(2048),
    fix              varchar(1024),
    cancel_requested boolean NOT NULL DEFAULT FALSE,
    attempts         integer NOT NULL DEFAULT 0,
    -- The registry that carries it out, and when it was last heard of.
    instance         varchar(128),
    heartbeat_at     timestamptz,
    actor            varchar(128) NOT NULL,
    user_id          varchar(64),
    address          varchar(64),
    request_id       varchar(128),
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz
);
-- One at a time, whatever the number of registries.
CREATE UNIQUE INDEX deployment_jobs_running_key ON deployment_jobs ((TRUE)) WHERE status = 'running';
CREATE UNIQUE INDEX deployment_jobs_folder_key ON deployment_jobs (folder)
    WHERE kind = 'export' AND status IN ('queued', 'running');
CREATE INDEX idx_deployment_jobs_created ON deployment_jobs (created_at DESC, id DESC);

-- Which claim a row belongs to; and when a transaction of its request was committed, written by that transaction.
ALTER TABLE idempotency_keys ADD COLUMN claim uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE idempotency_keys ADD COLUMN committed_at timestamptz;

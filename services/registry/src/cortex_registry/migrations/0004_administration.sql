-- What an administrator can do further: limits and rotation of keys, archived and external models, recipes,
-- and creates that can safely be repeated.

ALTER TABLE api_keys ADD COLUMN tokens_per_month bigint;
ALTER TABLE api_keys ADD COLUMN priority varchar(16) NOT NULL DEFAULT 'interactive';
ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;
ALTER TABLE api_keys ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
-- The key that this one replaces; that one expires when the overlap ends.
ALTER TABLE api_keys ADD COLUMN rotated_from uuid;
CREATE INDEX idx_api_keys_user ON api_keys (user_id);
CREATE INDEX idx_api_keys_org ON api_keys (org_id);

ALTER TABLE models ADD COLUMN archived_at timestamptz;
-- Endpoints that others run: [{url, served_name, api_key_sealed}].
ALTER TABLE models ADD COLUMN external jsonb NOT NULL DEFAULT '[]';
ALTER TABLE models ADD COLUMN correlation_id varchar(128);
ALTER TABLE models ADD COLUMN causation_id varchar(64);
ALTER TABLE models DROP CONSTRAINT models_one_source;
ALTER TABLE models ADD CONSTRAINT models_one_source
    CHECK (num_nonnulls(repo_id, local_path) = 1 OR (external <> '[]' AND num_nonnulls(repo_id, local_path) = 0));
ALTER TABLE model_revisions ADD COLUMN request_id varchar(128);

-- A configuration to make models from: the flat form of the admin API, without names and secrets.
CREATE TABLE recipes (
    id          uuid PRIMARY KEY,
    version     bigint NOT NULL DEFAULT 1,
    name        varchar(128) NOT NULL,
    description varchar(2048) NOT NULL DEFAULT '',
    engine_type varchar(16) NOT NULL,
    task        varchar(16) NOT NULL,
    fields      jsonb NOT NULL,
    created_by  varchar(128) NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX recipes_name_key ON recipes (lower(name));

-- Answers to creates that carried an Idempotency-Key, for a day. The answer is sealed: it may hold a new API key.
CREATE TABLE idempotency_keys (
    actor          varchar(128) NOT NULL,
    key            varchar(128) NOT NULL,
    request_digest char(64) NOT NULL,
    -- NULL while the first request is still being answered.
    status         integer,
    answer_sealed  text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);
CREATE INDEX idx_idempotency_created ON idempotency_keys (created_at);

-- Models served by vLLM, API keys, usage, the outbox and the record of who changed what.

CREATE TABLE models (
    id                       uuid PRIMARY KEY,
    version                  bigint NOT NULL DEFAULT 1,
    name                     varchar(128) NOT NULL,
    served_model_name        varchar(128) NOT NULL,
    aliases                  text[] NOT NULL DEFAULT '{}',
    task                     varchar(16) NOT NULL DEFAULT 'generate',
    repo_id                  varchar(256),
    local_path               varchar(1024),
    engine_image             varchar(512),

    dtype                    varchar(16) DEFAULT 'auto',
    tp_size                  integer DEFAULT 1,
    pipeline_parallel_size   integer DEFAULT 1,
    gpu_memory_utilization   float DEFAULT 0.9,
    max_model_len            integer,
    kv_cache_dtype           varchar(64),
    max_num_batched_tokens   integer,
    max_num_seqs             integer,
    quantization             varchar(64),
    block_size               integer,
    cpu_offload_gb           float,
    enforce_eager            boolean DEFAULT FALSE,
    trust_remote_code        boolean DEFAULT FALSE,
    enable_prefix_caching    boolean,
    prefix_caching_hash_algo varchar(32),
    enable_chunked_prefill   boolean,
    tokenizer                varchar(1024),
    hf_config_path           varchar(1024),
    attention_backend        varchar(64),
    -- Options of the engine that have no column of their own, validated by the service.
    engine_options           jsonb NOT NULL DEFAULT '{}',

    extra_args               text[] NOT NULL DEFAULT '{}',
    extra_env                jsonb NOT NULL DEFAULT '{}',
    hf_token_sealed          text,
    replicas                 integer NOT NULL DEFAULT 1 CHECK (replicas >= 0),
    placement                jsonb NOT NULL DEFAULT '"auto"',
    lifecycle                varchar(16) NOT NULL DEFAULT 'always',
    idle_ttl_s               integer,
    desired_state            varchar(16) NOT NULL DEFAULT 'stopped',
    desired_since            timestamptz NOT NULL DEFAULT now(),
    restart_generation       integer NOT NULL DEFAULT 0,
    request_defaults         jsonb NOT NULL DEFAULT '{}',
    startup_timeout_s        integer NOT NULL DEFAULT 600,
    stop_timeout_s           integer NOT NULL DEFAULT 30,
    request_timeout_s        float NOT NULL DEFAULT 300,
    stream_timeout_s         float NOT NULL DEFAULT 300,
    routing_policy           varchar(32) NOT NULL DEFAULT 'least_loaded',
    fallbacks                text[] NOT NULL DEFAULT '{}',
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT models_one_source CHECK (num_nonnulls(repo_id, local_path) = 1)
);

-- Every name a client may ask for, served names and aliases alike: one owner each.
CREATE TABLE served_names (
    name     varchar(128) PRIMARY KEY,
    model_id uuid NOT NULL REFERENCES models (id) ON DELETE CASCADE
);
CREATE INDEX idx_served_names_model ON served_names (model_id);

-- Every version a model ever had; outlives the model.
CREATE TABLE model_revisions (
    model_id uuid NOT NULL,
    version  bigint NOT NULL,
    action   varchar(32) NOT NULL,
    author   varchar(128) NOT NULL,
    changed  text[] NOT NULL DEFAULT '{}',
    document jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, version)
);

-- The state last announced as `model.state_changed`, so that a change is announced once and none is missed.
-- The state itself is never stored: it is projected from what is observed.
CREATE TABLE announced_states (
    model_id uuid PRIMARY KEY REFERENCES models (id) ON DELETE CASCADE,
    state    varchar(16) NOT NULL,
    since    timestamptz NOT NULL
);

CREATE TABLE api_keys (
    id                     uuid PRIMARY KEY,
    version                bigint NOT NULL DEFAULT 1,
    name                   varchar(128) NOT NULL,
    prefix                 varchar(32) NOT NULL,
    -- Lower-case hex SHA-256 of the whole key; the key itself is kept nowhere.
    digest                 char(64) NOT NULL UNIQUE,
    scopes                 text[] NOT NULL DEFAULT '{*}',
    models                 text[] NOT NULL DEFAULT '{}',
    ip_allowlist           text[] NOT NULL DEFAULT '{}',
    expires_at             timestamptz,
    user_id                varchar(128),
    org_id                 varchar(128),
    requests_per_minute    integer,
    tokens_per_minute      integer,
    max_concurrent_streams integer,
    created_at             timestamptz NOT NULL DEFAULT now(),
    revoked_at             timestamptz
);

-- What the gateway settled. The request id makes a redelivery harmless; models and keys may be gone by then.
CREATE TABLE usage (
    request_id        text PRIMARY KEY,
    key_id            text NOT NULL,
    user_id           text,
    org_id            text,
    model_id          text,
    model             text NOT NULL,
    engine_type       text,
    replica_id        text,
    task              text NOT NULL,
    route             text NOT NULL,
    stream            boolean NOT NULL,
    status            integer NOT NULL,
    outcome           text NOT NULL,
    prompt_tokens     bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    estimated         boolean NOT NULL,
    ttft_ms           float,
    duration_ms       float NOT NULL,
    started_at        timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_usage_started ON usage (started_at DESC);
CREATE INDEX idx_usage_model ON usage (model, started_at DESC);
CREATE INDEX idx_usage_key ON usage (key_id, started_at DESC);

-- Events that were committed with their cause and wait for the relay. `seq` gives the order per aggregate, because
-- a writer inserts here only after it has locked the aggregate's row.
CREATE TABLE outbox (
    seq               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id          uuid NOT NULL UNIQUE,
    aggregate         varchar(16) NOT NULL,
    aggregate_id      uuid NOT NULL,
    aggregate_version bigint NOT NULL,
    event_type        varchar(64) NOT NULL,
    data              jsonb NOT NULL,
    correlation_id    varchar(128),
    created_at        timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cortex_outbox', '');
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();

CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      varchar(128) NOT NULL,
    action     varchar(64) NOT NULL,
    subject    varchar(128) NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}',
    request_id varchar(128)
);
CREATE INDEX idx_audit_at ON audit (at DESC);

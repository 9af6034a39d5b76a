-- Usage by month, its sums by hour, day and month, and distributions of its durations.
-- A database in use keeps its records; their sums are made here (hours) and by the registry's upkeep (days, months).

ALTER TABLE api_keys ADD COLUMN disabled_at timestamptz;
CREATE INDEX idx_api_keys_rotated_from ON api_keys (rotated_from) WHERE rotated_from IS NOT NULL;

ALTER TABLE usage RENAME TO usage_unparted;

-- What the gateway settled. A redelivery carries the same start and the same request id.
CREATE TABLE usage (
    request_id        text NOT NULL,
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
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT usage_by_start PRIMARY KEY (started_at, request_id)
) PARTITION BY RANGE (started_at);
CREATE INDEX idx_usage_by_model ON usage (model, started_at);
CREATE INDEX idx_usage_by_key ON usage (key_id, started_at);
CREATE INDEX idx_usage_by_user ON usage (user_id, started_at) WHERE user_id IS NOT NULL;
CREATE INDEX idx_usage_by_org ON usage (org_id, started_at) WHERE org_id IS NOT NULL;
CREATE INDEX idx_usage_failed ON usage (started_at, status) WHERE status >= 400;

-- Make the partition of a month (of UTC) unless it is there. Attaching, unlike creating in place, stops no reader.
CREATE FUNCTION usage_make_month(wanted date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    month date := make_date(extract(year FROM wanted)::integer, extract(month FROM wanted)::integer, 1);
    part  text := 'usage_' || to_char(month, 'YYYYMM');
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    PERFORM pg_advisory_xact_lock(1431519559, 1);
    -- Asked of the catalogue itself: a cached answer may be older than the wait.
    IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN
        RETURN FALSE;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage INCLUDING ALL)', part);
    EXECUTE format('ALTER TABLE usage ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
                   to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
                   to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
    RETURN TRUE;
END $$;

-- Bucket of a duration in milliseconds: 0 up to 1 ms, then each 5.1 % wider than the one before, so that the middle of a
-- bucket is at most 2.5 % off (domain/usage_latency.py reads them).
CREATE FUNCTION usage_bucket(ms double precision) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN ms > 1 THEN least(ceil(ln(ms) / 0.050010420574661416), 1000)::smallint ELSE 0::smallint END
$$;

-- Who used what: each combination once, so that sums carry a number instead of seven texts. '' is none. The name of a
-- model counts only when the request found one: what clients ask for in vain is theirs to invent.
CREATE TABLE usage_series (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id      text NOT NULL,
    model       text NOT NULL,
    model_id    text NOT NULL,
    user_id     text NOT NULL,
    org_id      text NOT NULL,
    engine_type text NOT NULL,
    task        text NOT NULL,
    CONSTRAINT usage_series_labels UNIQUE (key_id, model, model_id, user_id, org_id, engine_type, task)
);

CREATE VIEW usage_labelled AS
SELECT
    started_at, request_id, key_id, CASE WHEN model_id IS NULL THEN '' ELSE model END AS model,
    coalesce(model_id, '') AS model_id, coalesce(user_id, '') AS user_id, coalesce(org_id, '') AS org_id,
    coalesce(engine_type, '') AS engine_type, task, status, outcome, prompt_tokens, cached_tokens, completion_tokens,
    estimated, duration_ms, ttft_ms
FROM usage;

-- Sums by hour, written with the records themselves.
CREATE TABLE usage_hourly (
    period            timestamptz NOT NULL,
    series_id         integer NOT NULL,
    status            integer NOT NULL,
    outcome           text NOT NULL,
    requests          bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    estimated         bigint NOT NULL,
    duration_ms       float NOT NULL,
    ttft_ms           float NOT NULL,
    ttft_count        bigint NOT NULL,
    CONSTRAINT usage_hourly_by_period PRIMARY KEY (period, series_id, status, outcome)
) WITH (fillfactor = 80);
CREATE INDEX idx_usage_hourly_series ON usage_hourly (series_id, period);

-- The same by day and by month, made of what is above once the period is over.
CREATE TABLE usage_daily (LIKE usage_hourly INCLUDING ALL);
CREATE TABLE usage_monthly (LIKE usage_hourly INCLUDING ALL);

-- Sums of one dimension at a time: small, so that long windows are cheap.
CREATE TABLE usage_summaries (
    grain             varchar(8) NOT NULL,
    period            timestamptz NOT NULL,
    dimension         varchar(16) NOT NULL,
    value             text NOT NULL,
    requests          bigint NOT NULL,
    completed         bigint NOT NULL,
    client_disconnected bigint NOT NULL,
    upstream_error    bigint NOT NULL,
    rejected          bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    estimated         bigint NOT NULL,
    duration_ms       float NOT NULL,
    ttft_ms           float NOT NULL,
    ttft_count        bigint NOT NULL,
    CONSTRAINT usage_summaries_by_period PRIMARY KEY (grain, dimension, period, value)
);

-- Distributions of one dimension at a time: how many durations and times to the first token lie in each bucket.
CREATE TABLE usage_latencies (
    grain     varchar(8) NOT NULL,
    period    timestamptz NOT NULL,
    dimension varchar(16) NOT NULL,
    value     text NOT NULL,
    buckets   smallint[] NOT NULL,
    durations bigint[] NOT NULL,
    ttfts     bigint[] NOT NULL,
    CONSTRAINT usage_latencies_by_period PRIMARY KEY (grain, dimension, period, value)
);

-- Which days and months have records, and whether their sums hold all of them.
CREATE TABLE usage_periods (
    grain  varchar(8) NOT NULL,
    period timestamptz NOT NULL,
    clean  boolean NOT NULL DEFAULT FALSE,
    PRIMARY KEY (grain, period)
);

SELECT usage_make_month(wanted) FROM (
    SELECT DISTINCT date_trunc('month', started_at AT TIME ZONE 'UTC')::date AS wanted FROM usage_unparted
    UNION
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + ahead * interval '1 month')::date FROM generate_series(0, 2) ahead
) months ORDER BY wanted;
INSERT INTO usage SELECT
    request_id, key_id, user_id, org_id, model_id, model, engine_type, replica_id, task, route, stream, status, outcome,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_ms, duration_ms, started_at, recorded_at
FROM usage_unparted;
DROP TABLE usage_unparted;

INSERT INTO usage_series (key_id, model, model_id, user_id, org_id, engine_type, task)
SELECT DISTINCT key_id, model, model_id, user_id, org_id, engine_type, task FROM usage_labelled;
INSERT INTO usage_hourly
SELECT
    date_trunc('hour', u.started_at, 'UTC'), s.id, u.status, u.outcome, count(*), sum(u.prompt_tokens),
    sum(u.cached_tokens), sum(u.completion_tokens), count(*) FILTER (WHERE u.estimated), sum(u.duration_ms),
    coalesce(sum(u.ttft_ms), 0), count(u.ttft_ms)
FROM usage_labelled u JOIN usage_series s USING (key_id, model, model_id, user_id, org_id, engine_type, task)
GROUP BY 1, 2, 3, 4;
INSERT INTO usage_periods (grain, period)
SELECT grain, date_trunc(grain, period, 'UTC')
FROM usage_hourly CROSS JOIN (VALUES ('day'), ('month')) grains (grain)
GROUP BY 1, 2;

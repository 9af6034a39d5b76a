-- name: try_keep
SELECT pg_try_advisory_xact_lock($1, 2);

-- name: make_months
SELECT count(*) FILTER (WHERE usage_make_month(month)) FROM unnest($1::date[]) AS month;

-- name: stale_periods
SELECT p.grain, p.period FROM usage_periods p
WHERE NOT p.clean AND p.period + ('1 ' || p.grain)::interval <= $1
  AND (p.grain = 'day' OR NOT EXISTS (
      SELECT FROM usage_periods d
      WHERE d.grain = 'day' AND NOT d.clean AND d.period >= p.period AND d.period < p.period + interval '1 month'
  ))
ORDER BY p.grain, p.period DESC
LIMIT 100;

-- name: lock_period
SELECT pg_advisory_xact_lock($1, $2);

-- name: forget_sums
DELETE FROM {table} WHERE period = $1;

-- name: forget_summaries
DELETE FROM {table} WHERE grain = $2 AND period = $1;

-- name: sum_up
INSERT INTO {table}
SELECT
    $1, series_id, status, outcome, sum(requests), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens),
    sum(estimated), sum(duration_ms), sum(ttft_ms), sum(ttft_count)
FROM {source} WHERE period >= $1 AND period < $2
GROUP BY series_id, status, outcome;

-- name: summarize
INSERT INTO usage_summaries
SELECT
    $2, x.period, d.dimension, d.value, sum(x.requests),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'completed'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'client_disconnected'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'upstream_error'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'rejected'), 0),
    sum(x.prompt_tokens), sum(x.cached_tokens), sum(x.completion_tokens), sum(x.estimated), sum(x.duration_ms),
    sum(x.ttft_ms), sum(x.ttft_count)
FROM {table} x JOIN usage_series s ON s.id = x.series_id
CROSS JOIN LATERAL (VALUES
    ('all', ''), ('model', s.model), ('key', s.key_id), ('user', s.user_id), ('org', s.org_id),
    ('engine', s.engine_type), ('task', s.task), ('status', x.status::text), ('outcome', x.outcome)
) AS d (dimension, value)
WHERE x.period = $1
GROUP BY x.period, d.dimension, d.value;

-- name: forget_hours
DELETE FROM usage_summaries WHERE grain = 'hour' AND period >= $1 AND period < $2;

-- name: summarize_hours
INSERT INTO usage_summaries
SELECT
    'hour', x.period, d.dimension, d.value, sum(x.requests),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'completed'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'client_disconnected'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'upstream_error'), 0),
    coalesce(sum(x.requests) FILTER (WHERE x.outcome = 'rejected'), 0),
    sum(x.prompt_tokens), sum(x.cached_tokens), sum(x.completion_tokens), sum(x.estimated), sum(x.duration_ms),
    sum(x.ttft_ms), sum(x.ttft_count)
FROM usage_hourly x JOIN usage_series s ON s.id = x.series_id
CROSS JOIN LATERAL (VALUES
    ('all', ''), ('model', s.model), ('org', s.org_id), ('engine', s.engine_type), ('task', s.task),
    ('status', x.status::text), ('outcome', x.outcome)
) AS d (dimension, value)
WHERE x.period >= $1 AND x.period < $2
GROUP BY x.period, d.dimension, d.value;

-- name: distribute_day
INSERT INTO usage_latencies
WITH measured AS MATERIALIZED (
    SELECT key_id, model, user_id, org_id, engine_type, task, bucket, sum(durations) AS durations, sum(ttfts) AS ttfts
    FROM usage_labelled x CROSS JOIN LATERAL (
        VALUES (usage_bucket(x.duration_ms), 1, 0),
               (CASE WHEN x.ttft_ms IS NOT NULL THEN usage_bucket(x.ttft_ms) END, 0, 1)
    ) AS b (bucket, durations, ttfts)
    WHERE x.started_at >= $1 AND x.started_at < $2 AND x.outcome = 'completed' AND b.bucket IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5, 6, 7
), counted AS (
    SELECT d.dimension, d.value, m.bucket, sum(m.durations)::bigint AS durations, sum(m.ttfts)::bigint AS ttfts
    FROM measured m CROSS JOIN LATERAL (VALUES
        ('all', ''), ('model', m.model), ('key', m.key_id), ('user', m.user_id), ('org', m.org_id),
        ('engine', m.engine_type), ('task', m.task)
    ) AS d (dimension, value)
    GROUP BY 1, 2, 3
)
SELECT
    'day', $1, dimension, value, array_agg(bucket ORDER BY bucket), array_agg(durations ORDER BY bucket),
    array_agg(ttfts ORDER BY bucket)
FROM counted GROUP BY dimension, value;

-- name: distribute_month
INSERT INTO usage_latencies
WITH counted AS (
    SELECT x.dimension, x.value, b.bucket, sum(b.durations)::bigint AS durations, sum(b.ttfts)::bigint AS ttfts
    FROM usage_latencies x CROSS JOIN LATERAL unnest(x.buckets, x.durations, x.ttfts) AS b (bucket, durations, ttfts)
    WHERE x.grain = 'day' AND x.period >= $1 AND x.period < $2
    GROUP BY 1, 2, 3
)
SELECT
    'month', $1, dimension, value, array_agg(bucket ORDER BY bucket), array_agg(durations ORDER BY bucket),
    array_agg(ttfts ORDER BY bucket)
FROM counted GROUP BY dimension, value;

-- name: mark_clean
UPDATE usage_periods SET clean = TRUE WHERE grain = $1 AND period = $2;

-- name: partitions
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'usage'::regclass ORDER BY c.relname;

-- name: unsummed_month
SELECT EXISTS (
    SELECT FROM usage_periods WHERE NOT clean AND period >= $1 AND period < $1::timestamptz + interval '1 month'
);

-- name: drop_partition
SET LOCAL lock_timeout = '2s'; ALTER TABLE usage DETACH PARTITION {name}; DROP TABLE {name};

-- name: forget_rollups
WITH hours AS (DELETE FROM usage_hourly WHERE period < $1),
    days AS (DELETE FROM usage_daily WHERE period < $1),
    months AS (DELETE FROM usage_monthly WHERE period < $1),
    summaries AS (DELETE FROM usage_summaries WHERE period < $1),
    latencies AS (DELETE FROM usage_latencies WHERE period < $1)
DELETE FROM usage_periods WHERE period < $1;

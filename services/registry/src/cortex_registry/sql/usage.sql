-- name: prepare
SELECT
    (SELECT count(pg_advisory_xact_lock_shared($1, period)) FROM (SELECT unnest($2::integer[]) AS period ORDER BY 1) p),
    (SELECT count(usage_make_month(month)) FROM (SELECT unnest($3::date[]) AS month ORDER BY 1) m);

-- name: insert_usage
INSERT INTO usage (
    request_id, key_id, user_id, org_id, model_id, model, engine_type, replica_id, task, route, stream, status, outcome,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_ms, duration_ms, started_at
)
SELECT
    request_id, key_id, user_id, org_id, model_id, left(model, 256), engine_type, replica_id, task, left(route, 256),
    stream, status, outcome,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_ms, duration_ms, started_at
FROM jsonb_populate_recordset(NULL::usage, $1::jsonb)
ORDER BY started_at, request_id
ON CONFLICT (started_at, request_id) DO NOTHING
RETURNING started_at, request_id;

-- name: add_series
INSERT INTO usage_series (key_id, model, model_id, user_id, org_id, engine_type, task)
SELECT DISTINCT key_id, model, model_id, user_id, org_id, engine_type, task
FROM usage_labelled u JOIN unnest($1::timestamptz[], $2::text[]) AS new (started_at, request_id)
    USING (started_at, request_id)
WHERE NOT EXISTS (
    SELECT FROM usage_series s
    WHERE (s.key_id, s.model, s.model_id, s.user_id, s.org_id, s.engine_type, s.task)
        = (u.key_id, u.model, u.model_id, u.user_id, u.org_id, u.engine_type, u.task)
)
ORDER BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT DO NOTHING;

-- name: add_hourly
INSERT INTO usage_hourly AS present (
    period, series_id, status, outcome, requests, prompt_tokens, cached_tokens, completion_tokens, estimated, duration_ms,
    ttft_ms, ttft_count
)
SELECT
    date_trunc('hour', u.started_at, 'UTC'), s.id, u.status, u.outcome, count(*), sum(u.prompt_tokens),
    sum(u.cached_tokens), sum(u.completion_tokens), count(*) FILTER (WHERE u.estimated), sum(u.duration_ms),
    coalesce(sum(u.ttft_ms), 0), count(u.ttft_ms)
FROM usage_labelled u
JOIN unnest($1::timestamptz[], $2::text[]) AS new (started_at, request_id) USING (started_at, request_id)
JOIN usage_series s USING (key_id, model, model_id, user_id, org_id, engine_type, task)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
ON CONFLICT (period, series_id, status, outcome) DO UPDATE SET
    requests = present.requests + excluded.requests,
    prompt_tokens = present.prompt_tokens + excluded.prompt_tokens,
    cached_tokens = present.cached_tokens + excluded.cached_tokens,
    completion_tokens = present.completion_tokens + excluded.completion_tokens,
    estimated = present.estimated + excluded.estimated,
    duration_ms = present.duration_ms + excluded.duration_ms,
    ttft_ms = present.ttft_ms + excluded.ttft_ms,
    ttft_count = present.ttft_count + excluded.ttft_count;

-- name: mark_periods
WITH wanted AS (
    SELECT 'day' AS grain, unnest($1::timestamptz[]) AS period
    UNION ALL
    SELECT 'month', unnest($2::timestamptz[])
), stale AS (
    UPDATE usage_periods p SET clean = FALSE
    FROM wanted WHERE p.grain = wanted.grain AND p.period = wanted.period AND p.clean
)
INSERT INTO usage_periods (grain, period)
SELECT grain, period FROM wanted
WHERE NOT EXISTS (SELECT FROM usage_periods p WHERE p.grain = wanted.grain AND p.period = wanted.period)
ORDER BY 1, 2
ON CONFLICT DO NOTHING;

-- name: touch_keys
UPDATE api_keys k SET last_used_at = used.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at)
WHERE k.id = used.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at - interval '1 minute');

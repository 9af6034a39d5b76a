-- Templates: `{...}` is filled with names of columns and numbers of parameters, never with what a client sent.

-- name: settle_in
SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL work_mem = '64MB';

-- name: known_periods
SELECT grain, period, clean FROM usage_periods WHERE period >= $1 AND period < $2;

-- name: first_period
SELECT min(period) FROM usage_periods WHERE grain = 'day';

-- name: list_usage
SELECT * FROM usage WHERE {conditions} ORDER BY started_at DESC, request_id DESC LIMIT {limit};

-- name: sums_of_cube
sum(x.requests) AS requests,
sum(x.requests) FILTER (WHERE x.outcome = 'completed') AS completed,
sum(x.requests) FILTER (WHERE x.outcome = 'client_disconnected') AS client_disconnected,
sum(x.requests) FILTER (WHERE x.outcome = 'upstream_error') AS upstream_error,
sum(x.requests) FILTER (WHERE x.outcome = 'rejected') AS rejected,
sum(x.prompt_tokens) AS prompt_tokens, sum(x.cached_tokens) AS cached_tokens,
sum(x.completion_tokens) AS completion_tokens, sum(x.estimated) AS estimated,
sum(x.duration_ms) AS duration_ms, sum(x.ttft_ms) AS ttft_ms, sum(x.ttft_count) AS ttft_count

-- name: sums_of_summaries
sum(x.requests) AS requests, sum(x.completed) AS completed, sum(x.client_disconnected) AS client_disconnected,
sum(x.upstream_error) AS upstream_error, sum(x.rejected) AS rejected,
sum(x.prompt_tokens) AS prompt_tokens, sum(x.cached_tokens) AS cached_tokens,
sum(x.completion_tokens) AS completion_tokens, sum(x.estimated) AS estimated,
sum(x.duration_ms) AS duration_ms, sum(x.ttft_ms) AS ttft_ms, sum(x.ttft_count) AS ttft_count

-- name: sums_of_records
count(*) AS requests,
count(*) FILTER (WHERE x.outcome = 'completed') AS completed,
count(*) FILTER (WHERE x.outcome = 'client_disconnected') AS client_disconnected,
count(*) FILTER (WHERE x.outcome = 'upstream_error') AS upstream_error,
count(*) FILTER (WHERE x.outcome = 'rejected') AS rejected,
sum(x.prompt_tokens) AS prompt_tokens, sum(x.cached_tokens) AS cached_tokens,
sum(x.completion_tokens) AS completion_tokens, count(*) FILTER (WHERE x.estimated) AS estimated,
sum(x.duration_ms) AS duration_ms, sum(x.ttft_ms) AS ttft_ms, count(x.ttft_ms) AS ttft_count

-- name: part
SELECT {columns} {sums} FROM {source} WHERE {conditions} {grouping}

-- name: whole
SELECT {columns} {grand} AS grand,
    coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(completed), 0)::bigint AS completed,
    coalesce(sum(client_disconnected), 0)::bigint AS client_disconnected,
    coalesce(sum(upstream_error), 0)::bigint AS upstream_error, coalesce(sum(rejected), 0)::bigint AS rejected,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens, coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens, coalesce(sum(estimated), 0)::bigint AS estimated,
    coalesce(sum(duration_ms), 0) AS duration_ms, coalesce(sum(ttft_ms), 0) AS ttft_ms,
    coalesce(sum(ttft_count), 0)::bigint AS ttft_count
FROM ({parts}) u {grouping} {order}

-- name: distribution_of_latencies
SELECT x.value AS value, b.bucket, sum(b.durations) AS durations, sum(b.ttfts) AS ttfts
FROM usage_latencies x CROSS JOIN LATERAL unnest(x.buckets, x.durations, x.ttfts) AS b (bucket, durations, ttfts)
WHERE {conditions}
GROUP BY 1, 2

-- name: distribution_of_records
SELECT {value} AS value, b.bucket, sum(b.durations) AS durations, sum(b.ttfts) AS ttfts
FROM usage_labelled x CROSS JOIN LATERAL (
    VALUES (usage_bucket(x.duration_ms), 1, 0), (CASE WHEN x.ttft_ms IS NOT NULL THEN usage_bucket(x.ttft_ms) END, 0, 1)
) AS b (bucket, durations, ttfts)
WHERE x.outcome = 'completed' AND b.bucket IS NOT NULL AND {conditions}
GROUP BY 1, 2

-- name: distribution
WITH counted AS MATERIALIZED (
    SELECT value, bucket, sum(durations)::bigint AS durations, sum(ttfts)::bigint AS ttfts
    FROM ({parts}) u GROUP BY 1, 2
), largest AS (
    SELECT value, sum(durations) AS total FROM counted GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}
)
SELECT value, bucket, durations, ttfts FROM counted JOIN largest USING (value) ORDER BY total DESC, value, bucket;

-- name: key_names
SELECT id::text AS id, name FROM api_keys WHERE id = ANY($1::uuid[]);

-- name: user_names
SELECT id::text AS id, username AS name FROM users WHERE id = ANY($1::uuid[]);

-- name: org_names
SELECT id::text AS id, name FROM orgs WHERE id = ANY($1::uuid[]);

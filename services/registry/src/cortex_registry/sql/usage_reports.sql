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
-- As floats, which add several times faster than the numerics that sums of bigints are, and exactly below 2^53.
sum(x.requests::float) AS requests,
sum(x.requests::float) FILTER (WHERE x.outcome = 'completed') AS completed,
sum(x.requests::float) FILTER (WHERE x.outcome = 'client_disconnected') AS client_disconnected,
sum(x.requests::float) FILTER (WHERE x.outcome = 'upstream_error') AS upstream_error,
sum(x.requests::float) FILTER (WHERE x.outcome = 'rejected') AS rejected,
sum(x.prompt_tokens::float) AS prompt_tokens, sum(x.cached_tokens::float) AS cached_tokens,
sum(x.completion_tokens::float) AS completion_tokens, sum(x.estimated::float) AS estimated,
sum(x.duration_ms) AS duration_ms, sum(x.ttft_ms) AS ttft_ms, sum(x.ttft_count::float) AS ttft_count

-- name: sums_of_summaries
sum(x.requests::float) AS requests, sum(x.completed::float) AS completed, sum(x.client_disconnected::float) AS client_disconnected,
sum(x.upstream_error::float) AS upstream_error, sum(x.rejected::float) AS rejected,
sum(x.prompt_tokens::float) AS prompt_tokens, sum(x.cached_tokens::float) AS cached_tokens,
sum(x.completion_tokens::float) AS completion_tokens, sum(x.estimated::float) AS estimated,
sum(x.duration_ms) AS duration_ms, sum(x.ttft_ms) AS ttft_ms, sum(x.ttft_count::float) AS ttft_count

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
SELECT x.value AS value, b.bucket, sum(b.many::float) AS many
FROM usage_latencies x CROSS JOIN LATERAL unnest(x.buckets, x.{measure}s) AS b (bucket, many)
WHERE {conditions}
GROUP BY 1, 2

-- name: distribution_of_records
SELECT {value} AS value, usage_bucket(x.{measure}_ms) AS bucket, count(*)::float AS many
FROM usage_labelled x
WHERE x.outcome = 'completed' AND x.{measure}_ms IS NOT NULL AND {conditions}
GROUP BY 1, 2

-- name: distribution
SELECT value, bucket, sum(many)::bigint AS many FROM ({parts}) u WHERE many > 0 GROUP BY 1, 2;

-- name: key_names
SELECT id::text AS id, name FROM api_keys WHERE id = ANY($1::uuid[]);

-- name: user_names
SELECT id::text AS id, username AS name FROM users WHERE id = ANY($1::uuid[]);

-- name: org_names
SELECT id::text AS id, name FROM orgs WHERE id = ANY($1::uuid[]);

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
ON CONFLICT (request_id) DO NOTHING;

-- name: list_usage
SELECT * FROM usage
WHERE ($1::text IS NULL OR model = $1 OR model_id = $1)
  AND ($2::text IS NULL OR key_id = $2)
  AND ($3::timestamptz IS NULL OR started_at >= $3)
ORDER BY started_at DESC, request_id DESC
LIMIT $4;

-- name: total_usage
SELECT
    count(*) AS requests,
    count(*) FILTER (WHERE outcome = 'completed') AS completed,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens
FROM usage
WHERE ($1::text IS NULL OR model = $1 OR model_id = $1)
  AND ($2::text IS NULL OR key_id = $2)
  AND ($3::timestamptz IS NULL OR started_at >= $3);

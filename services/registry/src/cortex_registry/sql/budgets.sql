-- name: spent
SELECT k.id::text AS key_id, sum(h.prompt_tokens + h.completion_tokens)::bigint AS tokens
FROM api_keys k
JOIN usage_series s ON s.key_id = k.id::text
JOIN usage_hourly h ON h.series_id = s.id
WHERE k.tokens_per_month IS NOT NULL AND h.period >= $1
GROUP BY k.id;

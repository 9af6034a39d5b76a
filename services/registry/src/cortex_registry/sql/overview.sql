-- name: throughput
SELECT model, count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS failed,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY ttft_ms) AS ttft_ms_p50,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS duration_ms_p50
FROM usage
WHERE started_at >= $1 AND model_id IS NOT NULL
GROUP BY model ORDER BY requests DESC, model LIMIT $2;

-- name: revisions
SELECT r.version, r.action, r.author, r.at, r.request_id, r.changed, a.address,
    (
        SELECT count(*) FROM event_log e
        WHERE e.model_id = r.model_id::text AND e.correlation_id = r.request_id AND e.time >= r.at - interval '10 seconds'
          AND (e.topic LIKE 'container.%' OR e.topic LIKE 'placement.%')
    ) AS follow_ups
FROM model_revisions r
LEFT JOIN LATERAL (
    SELECT address FROM audit
    WHERE request_id = r.request_id AND subject = 'model/' || r.model_id AND action = r.action
    ORDER BY id LIMIT 1
) a ON TRUE
WHERE r.model_id = $1 AND ($2::bigint IS NULL OR r.version >= $2)
ORDER BY r.version DESC
LIMIT $3;

-- name: chain_count
SELECT count(*) FROM event_log
WHERE model_id = $1 AND time >= $3
  AND (correlation_id = $2 OR (correlation_id IS NULL AND ($4::timestamptz IS NULL OR time < $4)));

-- name: chain_first
SELECT * FROM event_log
WHERE model_id = $1 AND time >= $3
  AND (correlation_id = $2 OR (correlation_id IS NULL AND ($4::timestamptz IS NULL OR time < $4)))
ORDER BY sequence
LIMIT $5;

-- name: chain_last
SELECT * FROM event_log
WHERE model_id = $1 AND time >= $3
  AND (correlation_id = $2 OR (correlation_id IS NULL AND ($4::timestamptz IS NULL OR time < $4)))
ORDER BY sequence DESC
LIMIT $5;

-- name: history
SELECT wanted.replica_id, log.topic, log.time, log.data
FROM unnest($1::text[]) AS wanted (replica_id)
CROSS JOIN LATERAL (
    SELECT topic, time, data FROM event_log
    WHERE replica_id = wanted.replica_id AND topic IN ('upstream.healthy', 'upstream.unhealthy')
    ORDER BY sequence DESC LIMIT $2
) AS log;

-- name: discovered
SELECT DISTINCT model_id FROM model_revisions WHERE action = $1;

-- name: lock_log
SELECT pg_advisory_xact_lock($1);

-- name: append
-- Progress replaces what is known of the same window, and never goes back in time.
WITH incoming AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS i(
        position integer, event_id text, type text, topic text, subject text, source text, "time" timestamptz,
        aggregate_version bigint, correlation_id text, causation_id text, traceparent text, model_id text,
        replica_id text, key_id text, progress text, data jsonb
    )
),
fresh AS (
    SELECT * FROM incoming i
    WHERE i.progress IS NULL
       OR NOT EXISTS (SELECT FROM event_log e WHERE e.progress = i.progress AND e.time >= i.time)
),
overtaken AS (
    DELETE FROM event_log e USING fresh f
    WHERE f.progress IS NOT NULL AND e.progress = f.progress
      AND floor(extract(epoch FROM e.time) / $2::integer) = floor(extract(epoch FROM f.time) / $2::integer)
)
INSERT INTO event_log (
    event_id, type, topic, subject, source, time, aggregate_version, correlation_id, causation_id, traceparent, model_id,
    replica_id, key_id, progress, data
)
SELECT
    event_id, type, topic, subject, source, time, aggregate_version, correlation_id, causation_id, traceparent, model_id,
    replica_id, key_id, progress, data
FROM fresh
ORDER BY position
ON CONFLICT (event_id) DO NOTHING;

-- name: notify
SELECT pg_notify('cortex_events', '');

-- name: head
SELECT
    greatest((SELECT max(sequence) FROM event_log), (SELECT through FROM event_log_pruned)) AS head,
    (SELECT through FROM event_log_pruned) AS pruned;

-- name: topics
WITH RECURSIVE t AS (
    (SELECT topic FROM event_log ORDER BY topic LIMIT 1)
    UNION ALL
    SELECT (SELECT e.topic FROM event_log e WHERE e.topic > t.topic ORDER BY e.topic LIMIT 1) FROM t
    WHERE t.topic IS NOT NULL
)
SELECT topic FROM t WHERE topic IS NOT NULL;

-- name: after
SELECT * FROM event_log WHERE sequence > $1 ORDER BY sequence LIMIT $2;

-- name: oldest_first
SELECT * FROM event_log
WHERE sequence > $1
  AND ($2::text[] IS NULL OR topic = ANY($2))
  AND ($3::text IS NULL OR model_id = $3)
  AND ($4::text IS NULL OR replica_id = $4)
  AND ($5::text IS NULL OR key_id = $5)
  AND ($6::text IS NULL OR correlation_id = $6)
  AND ($7::text IS NULL OR source = $7 OR split_part(source, '/', 2) = $7)
  AND ($8::timestamptz IS NULL OR time >= $8)
ORDER BY sequence
LIMIT $9;

-- name: newest_first
SELECT * FROM event_log
WHERE sequence < $1
  AND ($2::text[] IS NULL OR topic = ANY($2))
  AND ($3::text IS NULL OR model_id = $3)
  AND ($4::text IS NULL OR replica_id = $4)
  AND ($5::text IS NULL OR key_id = $5)
  AND ($6::text IS NULL OR correlation_id = $6)
  AND ($7::text IS NULL OR source = $7 OR split_part(source, '/', 2) = $7)
  AND ($8::timestamptz IS NULL OR time >= $8)
ORDER BY sequence DESC
LIMIT $9;

-- name: find_event
SELECT * FROM event_log WHERE sequence = $1;

-- name: find_event_by_id
SELECT * FROM event_log WHERE event_id = $1;

-- name: beyond_cap
SELECT sequence FROM event_log ORDER BY sequence DESC OFFSET $1 LIMIT 1;

-- name: beyond_age
SELECT max(sequence) FROM event_log WHERE recorded_at < now() - make_interval(secs => $1::float);

-- name: prune
DELETE FROM event_log WHERE sequence IN (SELECT sequence FROM event_log WHERE sequence <= $1 ORDER BY sequence LIMIT $2);

-- name: mark_pruned
UPDATE event_log_pruned SET through = greatest(through, $1);

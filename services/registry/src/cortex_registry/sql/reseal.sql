-- name: places
SELECT c.relname AS table_name, a.attname AS column_name, a.atttypid = 'jsonb'::regtype AS is_json
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
    AND c.relname NOT IN ('models', 'event_log', 'outbox', 'audit')
    AND ((a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND a.attname LIKE '%\_sealed')
        OR a.atttypid = 'jsonb'::regtype)
ORDER BY 1, 2;

-- name: models
SELECT * FROM models WHERE hf_token_sealed IS NOT NULL OR external <> '[]' ORDER BY id FOR UPDATE;

-- name: update_model
UPDATE models SET hf_token_sealed = $2, external = $3, version = version + 1, correlation_id = $4, causation_id = $4,
    updated_at = now()
WHERE id = $1;

-- name: drop_answer
DELETE FROM idempotency_keys WHERE ctid = $1;

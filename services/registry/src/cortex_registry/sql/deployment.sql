-- name: insert_job
INSERT INTO deployment_jobs (id, kind, folder, options, actor, user_id, address, request_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: find_job
SELECT * FROM deployment_jobs WHERE id = $1;

-- name: list_jobs
SELECT * FROM deployment_jobs
WHERE id < $1::uuid AND ($2::text IS NULL OR kind = $2) AND ($3::text IS NULL OR status = $3)
ORDER BY id DESC LIMIT $4;

-- name: latest_jobs
SELECT DISTINCT ON (kind) * FROM deployment_jobs WHERE status = 'succeeded' ORDER BY kind, id DESC;

-- name: active_jobs
SELECT * FROM deployment_jobs WHERE status IN ('queued', 'running') ORDER BY id LIMIT 100;

-- name: forget_jobs
DELETE FROM deployment_jobs WHERE status IN ('succeeded', 'failed', 'cancelled') AND id NOT IN (
    SELECT id FROM deployment_jobs ORDER BY id DESC LIMIT $1
);

-- name: cancel_job
UPDATE deployment_jobs SET
    cancel_requested = TRUE,
    status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
    finished_at = CASE WHEN status = 'queued' THEN clock_timestamp() END
WHERE id = $1 AND status IN ('queued', 'running')
RETURNING *;

-- name: dead_jobs
SELECT * FROM deployment_jobs
WHERE status = 'running' AND heartbeat_at < clock_timestamp() - make_interval(secs => $1) FOR UPDATE SKIP LOCKED;

-- name: claim_job
UPDATE deployment_jobs SET
    status = 'running', instance = $1, attempts = attempts + 1, step = '', done_bytes = 0, total_bytes = NULL,
    started_at = clock_timestamp(), heartbeat_at = clock_timestamp()
WHERE id = (SELECT id FROM deployment_jobs WHERE status = 'queued' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    AND NOT EXISTS (SELECT FROM deployment_jobs WHERE status = 'running')
RETURNING *;

-- name: beat
UPDATE deployment_jobs SET heartbeat_at = clock_timestamp(), step = $3, done_bytes = $4, total_bytes = $5
WHERE id = $1 AND attempts = $2 AND status = 'running'
RETURNING cancel_requested;

-- name: settle_job
UPDATE deployment_jobs SET
    status = $3::text, result = $4, error_code = $5, error = $6, fix = $7, step = coalesce($8, step),
    done_bytes = coalesce($9, done_bytes), instance = CASE WHEN $3::text = 'queued' THEN NULL ELSE instance END,
    finished_at = CASE WHEN $3::text <> 'queued' THEN clock_timestamp() END
WHERE id = $1 AND attempts = $2 AND status = 'running'
RETURNING TRUE;

-- name: tables
SELECT c.relname AS name,
    ARRAY(SELECT a.attname::text FROM pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          ORDER BY a.attnum) AS columns,
    ARRAY(SELECT DISTINCT r.relname::text FROM pg_constraint f JOIN pg_class r ON r.oid = f.confrelid
          WHERE f.conrelid = c.oid AND f.contype = 'f') AS refers_to
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname;

-- name: table_bytes
SELECT c.relname AS name, sum(pg_table_size(t.oid))::bigint AS bytes
FROM pg_class c JOIN LATERAL (
    SELECT c.oid UNION ALL SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = c.oid
) t ON TRUE
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
GROUP BY c.relname;

-- name: applied_migrations
SELECT version, sha256 FROM schema_migrations ORDER BY version;

-- name: usage_months
SELECT to_char(to_date(right(c.relname, 6), 'YYYYMM'), 'YYYY-MM-DD') AS month
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'usage'::regclass AND c.relname ~ '^usage_[0-9]{6}$' ORDER BY 1;

-- name: running_models
SELECT name FROM models WHERE desired_state = 'running' AND external = '[]' AND archived_at IS NULL ORDER BY name;

-- name: sequences
SELECT c.relname AS table_name, a.attname AS column_name, pg_get_serial_sequence(quote_ident(c.relname), a.attname) AS sequence
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND a.attidentity <> ''
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition;

-- name: stop_models
WITH stopped AS (
    UPDATE models SET desired_state = 'stopped', desired_since = now(), version = version + 1, updated_at = now()
    WHERE desired_state = 'running' AND external = '[]'
    RETURNING id, version
)
INSERT INTO model_revisions (model_id, version, action, author, changed, document, request_id)
SELECT s.id, s.version, 'model.stop', $1, ARRAY['desired_state'],
    r.document || jsonb_build_object('desired_state', 'stopped', 'aggregateversion', s.version), $2
FROM stopped s JOIN model_revisions r ON r.model_id = s.id AND r.version = s.version - 1;

-- name: settle_webhooks
WITH old AS (
    UPDATE webhook_deliveries SET status = 'cancelled', finished_at = now(), last_error = 'the database was restored from a backup'
    WHERE status = 'pending'
)
UPDATE webhook_state SET cursor = (SELECT coalesce(max(sequence), 0) FROM event_log);

-- name: find_webhook
SELECT w.*, s.cursor, s.failing_since, s.failures, s.paused_until, s.last_success_at, s.last_failure_at, s.last_error,
    (SELECT count(*) FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.status = 'pending') AS pending
FROM webhooks w JOIN webhook_state s ON s.webhook_id = w.id
WHERE w.id = $1;

-- name: list_webhooks
SELECT w.*, s.cursor, s.failing_since, s.failures, s.paused_until, s.last_success_at, s.last_failure_at, s.last_error,
    (SELECT count(*) FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.status = 'pending') AS pending
FROM webhooks w JOIN webhook_state s ON s.webhook_id = w.id
WHERE $1::uuid IS NULL OR w.id > $1
ORDER BY w.id
LIMIT $2;

-- name: insert_webhook
INSERT INTO webhooks (id, version, name, url, events, enabled, secret_sealed, created_by, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9);

-- name: insert_state
INSERT INTO webhook_state (webhook_id, cursor)
VALUES ($1, greatest((SELECT max(sequence) FROM event_log), (SELECT through FROM event_log_pruned)));

-- name: update_webhook
UPDATE webhooks SET
    version = $3, name = $4, url = $5, events = $6, enabled = $7, disabled_reason = $8, secret_sealed = $9,
    previous_secret_sealed = $10, previous_until = $11, updated_at = $12
WHERE id = $1 AND version = $2
RETURNING id;

-- name: resume_webhook
UPDATE webhook_state SET
    cursor = greatest((SELECT max(sequence) FROM event_log), (SELECT through FROM event_log_pruned)),
    failing_since = NULL, failures = 0, paused_until = NULL
WHERE webhook_id = $1;

-- name: unpause_webhook
UPDATE webhook_state SET paused_until = NULL WHERE webhook_id = $1;

-- name: cancel_pending
UPDATE webhook_deliveries SET status = 'cancelled', finished_at = now(), last_error = 'the webhook was switched off'
WHERE webhook_id = $1 AND status = 'pending';

-- name: delete_webhook
DELETE FROM webhooks WHERE id = $1 AND version = $2 RETURNING id;

-- name: list_deliveries
SELECT * FROM webhook_deliveries
WHERE webhook_id = $1 AND id < $2 AND ($3::text IS NULL OR status = $3)
ORDER BY id DESC
LIMIT $4;

-- name: find_delivery
SELECT * FROM webhook_deliveries WHERE webhook_id = $1 AND id = $2;

-- name: list_attempts
SELECT at, status, duration_ms, error FROM webhook_attempts WHERE delivery_id = $1 ORDER BY id DESC LIMIT 50;

-- name: redeliver
INSERT INTO webhook_deliveries (webhook_id, kind, sequence, event_id, event_type, status)
SELECT $1, 'redelivery', e.sequence, e.event_id, e.type, 'pending' FROM event_log e WHERE e.sequence = $2
RETURNING *;

-- name: redeliver_span
INSERT INTO webhook_deliveries (webhook_id, kind, sequence, event_id, event_type, status)
SELECT $1, 'redelivery', e.sequence, e.event_id, e.type, 'pending'
FROM event_log e
WHERE e.sequence > $2 AND e.sequence <= $3 AND e.topic = ANY($4::text[])
  AND (NOT $5::boolean OR EXISTS (
      SELECT FROM webhook_deliveries d
      WHERE d.webhook_id = $1 AND d.sequence = e.sequence AND d.status IN ('failed', 'cancelled')
  ))
ORDER BY e.sequence
LIMIT $6;

-- name: notify
SELECT pg_notify('cortex_events', '');

-- name: try_lead
SELECT pg_try_advisory_lock($1);

-- name: behind
SELECT w.id, w.events, s.cursor
FROM webhooks w JOIN webhook_state s ON s.webhook_id = w.id
WHERE w.enabled AND s.cursor < $1
  AND (SELECT count(*) FROM (
      SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.status = 'pending' LIMIT $2
  ) waiting) < $2;

-- name: plan
WITH next AS (
    SELECT sequence, event_id, type, topic FROM event_log
    WHERE sequence > $2 AND sequence <= $3 ORDER BY sequence LIMIT $5
),
moved AS (
    UPDATE webhook_state SET cursor = coalesce((SELECT max(sequence) FROM next), $3)
    WHERE webhook_id = $1 AND cursor = $2
    RETURNING webhook_id
)
INSERT INTO webhook_deliveries (webhook_id, kind, sequence, event_id, event_type, status)
SELECT moved.webhook_id, 'event', sequence, event_id, type, 'pending'
FROM next, moved
WHERE topic = ANY($4::text[])
ORDER BY sequence
ON CONFLICT DO NOTHING;

-- name: claim
-- An endpoint that is down gets one request at a time until one succeeds.
WITH used AS (SELECT * FROM unnest($1::uuid[], $2::integer[]) AS u(webhook_id, requests)),
picked AS (
    SELECT due.id
    FROM webhooks w
    JOIN webhook_state s ON s.webhook_id = w.id
    LEFT JOIN used u ON u.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT d.id FROM webhook_deliveries d
        WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.next_attempt_at <= now()
        ORDER BY d.id
        LIMIT greatest(0, (CASE WHEN s.paused_until IS NULL THEN $3::integer ELSE 1 END) - coalesce(u.requests, 0))
    ) due
    WHERE w.enabled AND (s.paused_until IS NULL OR s.paused_until <= now())
    ORDER BY due.id
    LIMIT $4
)
UPDATE webhook_deliveries d SET next_attempt_at = now() + make_interval(secs => $5::float)
FROM picked
WHERE d.id = picked.id AND d.status = 'pending'
RETURNING d.*;

-- name: insert_attempt
INSERT INTO webhook_attempts (delivery_id, at, status, duration_ms, error)
SELECT id, $2, $3, $4, $5 FROM webhook_deliveries WHERE id = $1;

-- name: deliver
UPDATE webhook_deliveries SET
    status = 'delivered', attempts = attempts + 1, finished_at = now(), last_status = $2, last_error = NULL
WHERE id = $1;

-- name: note_success
UPDATE webhook_state SET failing_since = NULL, failures = 0, paused_until = NULL, last_success_at = $2
WHERE webhook_id = $1;

-- name: bring_forward
-- What failed only because the endpoint was down is tried now.
UPDATE webhook_deliveries SET next_attempt_at = now()
WHERE webhook_id = $1 AND status = 'pending' AND attempts > 0 AND last_status IS NULL AND NOT id = ANY($2::bigint[]);

-- name: retry_later
UPDATE webhook_deliveries SET
    attempts = attempts + 1, last_status = $2, last_error = $3,
    status = CASE WHEN $4::float IS NULL THEN 'failed' ELSE 'pending' END,
    next_attempt_at = now() + make_interval(secs => coalesce($4::float, 0)),
    finished_at = CASE WHEN $4::float IS NULL THEN now() END
WHERE id = $1 AND status = 'pending';

-- name: note_failure
UPDATE webhook_state SET
    failing_since = coalesce(failing_since, $2), failures = failures + 1, last_failure_at = $2, last_error = $3,
    paused_until = CASE WHEN $4::float IS NULL THEN paused_until ELSE now() + make_interval(secs => $4::float) END
WHERE webhook_id = $1;

-- name: abandon
UPDATE webhook_deliveries SET status = 'cancelled', finished_at = now(), last_error = $2 WHERE id = $1;

-- name: disable
UPDATE webhooks SET enabled = FALSE, disabled_reason = $2, version = version + 1, updated_at = now()
WHERE id = $1 AND enabled
RETURNING version, name;

-- name: prune
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE finished_at < $1 ORDER BY finished_at LIMIT $2
);

-- name: insert_test
INSERT INTO webhook_deliveries (
    webhook_id, kind, event_id, event_type, status, attempts, finished_at, last_status, last_error
)
SELECT id, 'test', $2, $3, $4, 1, now(), $5, $6 FROM webhooks WHERE id = $1
RETURNING id;

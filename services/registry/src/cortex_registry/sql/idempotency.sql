-- name: claim
INSERT INTO idempotency_keys AS present (actor, key, request_digest, created_at) VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (actor, key) DO UPDATE
SET request_digest = excluded.request_digest, status = NULL, answer_sealed = NULL, created_at = excluded.created_at,
    claim = excluded.claim, committed_at = NULL
WHERE present.created_at < clock_timestamp() - make_interval(secs => $5)
   OR (present.status IS NULL AND present.committed_at IS NULL
       AND present.created_at < clock_timestamp() - make_interval(secs => $4))
RETURNING claim;

-- name: find
SELECT request_digest, status, answer_sealed,
    committed_at IS NOT NULL AND created_at < clock_timestamp() - make_interval(secs => $3) AS lost
FROM idempotency_keys WHERE actor = $1 AND key = $2;

-- name: renew
UPDATE idempotency_keys SET created_at = clock_timestamp()
WHERE actor = $1 AND key = $2 AND claim = $3 AND status IS NULL;

-- name: writes
SELECT pg_current_xact_id_if_assigned() IS NOT NULL;

-- name: mark_committed
UPDATE idempotency_keys SET committed_at = clock_timestamp() WHERE actor = $1 AND key = $2 AND claim = $3
RETURNING TRUE;

-- name: keep
UPDATE idempotency_keys SET status = $4, answer_sealed = $5
WHERE actor = $1 AND key = $2 AND claim = $3 AND status IS NULL;

-- name: release
DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND claim = $3 AND status IS NULL AND committed_at IS NULL;

-- name: clean
DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => $1);

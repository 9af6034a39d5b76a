-- name: claim
INSERT INTO idempotency_keys AS present (actor, key, request_digest, created_at) VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (actor, key) DO UPDATE
SET request_digest = excluded.request_digest, status = NULL, answer_sealed = NULL, created_at = excluded.created_at
WHERE present.created_at < clock_timestamp() - make_interval(secs => $5)
   OR (present.status IS NULL AND present.created_at < clock_timestamp() - make_interval(secs => $4))
RETURNING created_at;

-- name: find
SELECT request_digest, status, answer_sealed FROM idempotency_keys WHERE actor = $1 AND key = $2;

-- name: renew
UPDATE idempotency_keys SET created_at = clock_timestamp()
WHERE actor = $1 AND key = $2 AND created_at = $3 AND status IS NULL
RETURNING created_at;

-- name: keep
UPDATE idempotency_keys SET status = $4, answer_sealed = $5
WHERE actor = $1 AND key = $2 AND created_at = $3 AND status IS NULL;

-- name: release
DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND created_at = $3 AND status IS NULL;

-- name: clean
DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - make_interval(secs => $1);

-- name: list_keys
SELECT * FROM api_keys ORDER BY id;

-- name: list_live_keys
SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY id;

-- name: find_live_keys
SELECT * FROM api_keys WHERE revoked_at IS NULL AND id = ANY($1::uuid[]);

-- name: insert_key
INSERT INTO api_keys (
    id, version, name, prefix, digest, scopes, models, ip_allowlist, expires_at, user_id, org_id, requests_per_minute,
    tokens_per_minute, max_concurrent_streams, tokens_per_month, priority, created_at
)
SELECT
    id, version, name, prefix, digest, scopes, models, ip_allowlist, expires_at, user_id, org_id, requests_per_minute,
    tokens_per_minute, max_concurrent_streams, tokens_per_month, priority, created_at
FROM jsonb_populate_record(NULL::api_keys, $1::jsonb);

-- name: lock_key
SELECT * FROM api_keys WHERE id = $1 FOR UPDATE;

-- name: revoke_key
UPDATE api_keys SET revoked_at = $2, version = version + 1 WHERE id = $1;

-- name: raise_key_version
UPDATE api_keys SET version = $2::bigint + 1 WHERE id = $1 AND version < $2::bigint;

-- name: list_keys
SELECT * FROM api_keys ORDER BY id;

-- name: page_keys
SELECT * FROM api_keys
WHERE ($1::text IS NULL OR user_id = $1)
  AND ($2::text IS NULL OR org_id = $2)
  AND ($3::text IS NULL OR $3 = CASE
        WHEN revoked_at IS NOT NULL THEN 'revoked'
        WHEN expires_at <= $4 THEN 'expired'
        WHEN disabled_at IS NOT NULL THEN 'disabled'
        ELSE 'active'
      END)
  AND ($5::text IS NULL OR strpos(lower(name), lower($5)) > 0 OR starts_with(prefix, left($5, 14)))
  AND ($6::uuid IS NULL OR id > $6)
ORDER BY id
LIMIT $7;

-- name: list_live_keys
SELECT * FROM api_keys WHERE revoked_at IS NULL AND disabled_at IS NULL ORDER BY id;

-- name: find_live_keys
SELECT * FROM api_keys WHERE revoked_at IS NULL AND disabled_at IS NULL AND id = ANY($1::uuid[]);

-- name: find_key
SELECT * FROM api_keys WHERE id = $1;

-- name: insert_key
INSERT INTO api_keys (
    id, version, name, prefix, digest, scopes, models, ip_allowlist, expires_at, user_id, org_id, requests_per_minute,
    tokens_per_minute, max_concurrent_streams, tokens_per_month, priority, created_at, updated_at, rotated_from
)
SELECT
    id, version, name, prefix, digest, scopes, models, ip_allowlist, expires_at, user_id, org_id, requests_per_minute,
    tokens_per_minute, max_concurrent_streams, tokens_per_month, priority, created_at, updated_at, rotated_from
FROM jsonb_populate_record(NULL::api_keys, $1::jsonb);

-- name: update_key
UPDATE api_keys k SET
    version = n.version, name = n.name, scopes = n.scopes, models = n.models, ip_allowlist = n.ip_allowlist,
    expires_at = n.expires_at, user_id = n.user_id, org_id = n.org_id, requests_per_minute = n.requests_per_minute,
    tokens_per_minute = n.tokens_per_minute, max_concurrent_streams = n.max_concurrent_streams,
    tokens_per_month = n.tokens_per_month, priority = n.priority, disabled_at = n.disabled_at, updated_at = n.updated_at
FROM jsonb_populate_record(NULL::api_keys, $1::jsonb) n
WHERE k.id = n.id;

-- name: lock_key
SELECT * FROM api_keys WHERE id = $1 FOR UPDATE;

-- name: revoke_key
UPDATE api_keys SET revoked_at = $2, updated_at = $2, version = version + 1 WHERE id = $1;

-- name: live_successor
SELECT id FROM api_keys WHERE rotated_from = $1 AND revoked_at IS NULL LIMIT 1;

-- name: lock_owner
SELECT org_id::text AS org_id FROM users WHERE id = $1 FOR NO KEY UPDATE;

-- name: find_owner
SELECT org_id::text AS org_id FROM users WHERE id = $1 FOR KEY SHARE;

-- name: find_org
SELECT id FROM orgs WHERE id = $1 FOR KEY SHARE;

-- name: count_live_keys_of
SELECT count(*) FROM api_keys
WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
  AND $3 = (expires_at IS NOT NULL AND expires_at - created_at <= $4);

-- name: raise_key_version
UPDATE api_keys SET version = $2::bigint + 1 WHERE id = $1 AND version < $2::bigint;

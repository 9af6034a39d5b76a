-- name: lock_users
SELECT pg_advisory_xact_lock(x'436F7274757365'::bigint);

-- name: page_users
SELECT * FROM users
WHERE ($1::uuid IS NULL OR id > $1)
    AND ($2::text IS NULL OR position($2 IN username_key) > 0 OR position($2 IN lower(display_name)) > 0)
    AND ($3::text IS NULL OR role = $3)
    AND ($4::uuid IS NULL OR org_id = $4)
    AND ($5::boolean IS NULL OR (disabled_at IS NOT NULL) = $5)
ORDER BY id LIMIT $6;

-- name: find_user
SELECT * FROM users WHERE id = $1;

-- name: find_users
SELECT * FROM users WHERE id = ANY($1::uuid[]) ORDER BY id;

-- name: find_user_by_name
SELECT * FROM users WHERE username_key = $1;

-- name: user_facts
SELECT
    users.*,
    (
        SELECT count(*) FROM users AS others
        WHERE others.role = 'admin' AND others.disabled_at IS NULL AND others.id <> users.id
    ) AS other_admins,
    (
        SELECT count(*) FROM api_keys
        WHERE api_keys.user_id = users.id::text AND api_keys.revoked_at IS NULL
            AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
    ) AS live_keys
FROM users WHERE users.id = $1 FOR UPDATE;

-- name: count_admins
SELECT count(*) FROM users WHERE role = 'admin';

-- name: insert_user
INSERT INTO users (
    id, version, username, username_key, display_name, role, org_id, password_hash, must_change_password, created_at,
    updated_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10);

-- name: update_user
UPDATE users SET
    version = $2, username = $3, username_key = $4, display_name = $5, role = $6, org_id = $7,
    password_hash = coalesce($8, password_hash), must_change_password = $9, disabled_at = $10, updated_at = $11
WHERE id = $1;

-- name: bump_user
UPDATE users SET version = version + 1 WHERE id = $1 RETURNING version, username;

-- name: rehash_user
UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2;

-- name: delete_user
DELETE FROM users WHERE id = $1;

-- name: page_orgs
SELECT orgs.*, (SELECT count(*) FROM users WHERE users.org_id = orgs.id) AS users FROM orgs
WHERE ($1::uuid IS NULL OR id > $1) AND ($2::text IS NULL OR position($2 IN name_key) > 0)
ORDER BY id LIMIT $3;

-- name: find_org
SELECT orgs.*, (SELECT count(*) FROM users WHERE users.org_id = orgs.id) AS users FROM orgs WHERE id = $1;

-- name: find_orgs
SELECT orgs.*, 0 AS users FROM orgs WHERE id = ANY($1::uuid[]) ORDER BY id;

-- name: find_org_by_name
SELECT orgs.*, 0 AS users FROM orgs WHERE name_key = $1;

-- name: org_facts
SELECT
    orgs.*,
    (SELECT count(*) FROM users WHERE users.org_id = orgs.id) AS users,
    (
        SELECT count(*) FROM api_keys
        WHERE api_keys.org_id = orgs.id::text AND api_keys.revoked_at IS NULL
            AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
    ) AS live_keys
FROM orgs WHERE orgs.id = $1 FOR UPDATE;

-- name: insert_org
INSERT INTO orgs (id, version, name, name_key, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5);

-- name: update_org
UPDATE orgs SET version = $2, name = $3, name_key = $4, updated_at = $5 WHERE id = $1;

-- name: delete_org
DELETE FROM orgs WHERE id = $1;

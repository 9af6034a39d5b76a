-- name: find_session
SELECT
    sessions.id AS session_id, sessions.csrf_digest, sessions.created_at AS opened_at, sessions.last_seen_at,
    sessions.expires_at, sessions.address, sessions.user_agent, users.*
FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.digest = $1;

-- name: sessions_of_user
SELECT id AS session_id, user_id, csrf_digest, created_at AS opened_at, last_seen_at, expires_at, address, user_agent
FROM sessions WHERE user_id = $1 ORDER BY last_seen_at DESC, id DESC LIMIT 1000;

-- name: insert_session
INSERT INTO sessions (digest, id, user_id, csrf_digest, created_at, last_seen_at, expires_at, address, user_agent)
SELECT $1, $2, id, $4, $5, $5, $6, $7, $8 FROM users WHERE id = $3 AND disabled_at IS NULL
RETURNING id;

-- name: trim_sessions
DELETE FROM sessions WHERE digest IN (
    SELECT digest FROM sessions WHERE user_id = $1 ORDER BY last_seen_at DESC, id DESC OFFSET $2
);

-- name: note_login
UPDATE users SET last_login_at = $2 WHERE id = $1;

-- name: touch_session
UPDATE sessions SET last_seen_at = greatest(last_seen_at, $2) WHERE digest = $1;

-- name: end_session
DELETE FROM sessions WHERE digest = $1 RETURNING user_id;

-- name: end_session_by_id
DELETE FROM sessions WHERE user_id = $1 AND id = $2 RETURNING user_id;

-- name: end_sessions_of_user
DELETE FROM sessions WHERE user_id = $1 AND digest IS DISTINCT FROM $2 RETURNING user_id;

-- name: sweep_sessions
DELETE FROM sessions WHERE expires_at < $1;

-- name: lock_attempts
SELECT pg_advisory_xact_lock(hashtextextended(subject, 1)) FROM unnest($1::text[]) AS subjects (subject);

-- name: find_attempts
SELECT subject, failures, last_at, blocked_until FROM login_failures WHERE subject = ANY($1::text[]);

-- name: store_attempt
INSERT INTO login_failures (subject, failures, first_at, last_at, blocked_until) VALUES ($1, $2, $3, $3, $4)
ON CONFLICT (subject) DO UPDATE SET failures = $2, last_at = $3, blocked_until = $4;

-- name: forget_attempts
DELETE FROM login_failures WHERE subject = $1;

-- name: return_attempt
UPDATE login_failures SET failures = greatest(0, failures - 1), blocked_until = NULL WHERE subject = $1;

-- name: sweep_attempts
DELETE FROM login_failures WHERE last_at < $1 AND (blocked_until IS NULL OR blocked_until < $2);

-- name: trim_attempts
DELETE FROM login_failures WHERE subject IN (SELECT subject FROM login_failures ORDER BY last_at DESC OFFSET $1);

-- name: find_token
SELECT
    admin_tokens.id AS token_id, admin_tokens.name AS token_name, admin_tokens.prefix, admin_tokens.role AS token_role,
    admin_tokens.expires_at, admin_tokens.last_used_at, admin_tokens.created_at AS made_at, admin_tokens.revoked_at,
    users.*
FROM admin_tokens JOIN users ON users.id = admin_tokens.user_id WHERE admin_tokens.digest = $1;

-- name: tokens_of_user
SELECT
    id AS token_id, user_id, name AS token_name, prefix, role AS token_role, expires_at, last_used_at,
    created_at AS made_at, revoked_at
FROM admin_tokens WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id;

-- name: count_tokens
SELECT count(*) FROM admin_tokens WHERE user_id = $1 AND revoked_at IS NULL;

-- name: insert_token
INSERT INTO admin_tokens (id, user_id, name, prefix, digest, role, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: revoke_token
UPDATE admin_tokens SET revoked_at = $3 WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING
    id AS token_id, user_id, name AS token_name, prefix, role AS token_role, expires_at, last_used_at,
    created_at AS made_at, revoked_at;

-- name: touch_token
UPDATE admin_tokens SET last_used_at = greatest(last_used_at, $2) WHERE id = $1;

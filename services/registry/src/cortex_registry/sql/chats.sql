-- name: list_chats
SELECT id, version, title, models, bytes, created_at, updated_at FROM chats
WHERE user_id = $1 ORDER BY updated_at DESC, id LIMIT $2;

-- name: find_chat
SELECT * FROM chats WHERE user_id = $1 AND id = $2;

-- name: lock_chat_owner
SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE;

-- name: count_chats
SELECT count(*) FROM chats WHERE user_id = $1;

-- name: put_chat
INSERT INTO chats (user_id, id, title, models, content, bytes, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT (user_id, id) DO UPDATE SET
    version = chats.version + 1, title = excluded.title, models = excluded.models, content = excluded.content,
    bytes = excluded.bytes, updated_at = excluded.updated_at
RETURNING *;

-- name: delete_chat
DELETE FROM chats WHERE user_id = $1 AND id = $2 RETURNING version;

-- name: delete_chats
DELETE FROM chats WHERE user_id = $1;

-- name: list_revisions
SELECT model_id, version, action, author, changed, document, at, request_id FROM model_revisions
WHERE model_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3;

-- name: find_revisions
SELECT model_id, version, action, author, changed, document, at, request_id FROM model_revisions
WHERE model_id = $1 AND version = ANY($2::bigint[]);

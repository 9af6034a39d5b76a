-- name: list_audit
SELECT id, at, actor, action, subject, detail, request_id, user_id, address FROM audit
WHERE id < $1
  AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR action LIKE $3)
  AND ($4::text IS NULL OR subject LIKE $4)
  AND ($5::text IS NULL OR request_id = $5)
  AND ($6::timestamptz IS NULL OR at >= $6)
  AND ($7::timestamptz IS NULL OR at < $7)
ORDER BY id DESC
LIMIT $8;

-- name: export_audit
SELECT id, at, actor, action, subject, detail, request_id, user_id, address FROM audit
WHERE id > $1
  AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR action LIKE $3)
  AND ($4::text IS NULL OR subject LIKE $4)
  AND ($5::text IS NULL OR request_id = $5)
  AND ($6::timestamptz IS NULL OR at >= $6)
  AND ($7::timestamptz IS NULL OR at < $7)
  AND id <= $9
ORDER BY id
LIMIT $8;

-- name: last_audit
SELECT coalesce(max(id), 0) FROM audit;

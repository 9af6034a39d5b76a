-- name: insert_outbox
INSERT INTO outbox (event_id, aggregate, aggregate_id, aggregate_version, event_type, data, correlation_id, causation_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: insert_audit
INSERT INTO audit (actor, action, subject, detail, request_id, user_id, address) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: try_lead
SELECT pg_try_advisory_lock($1);

-- name: pending
SELECT seq, event_id, aggregate, aggregate_id, aggregate_version, event_type, data, correlation_id, causation_id, created_at
FROM outbox ORDER BY seq LIMIT $1;

-- name: settle
DELETE FROM outbox WHERE seq = ANY($1::bigint[]);

-- name: backlog
SELECT count(*) AS rows, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float AS age_s FROM outbox;

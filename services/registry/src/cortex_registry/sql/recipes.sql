-- name: list_recipes
SELECT * FROM recipes
WHERE ($1::uuid IS NULL OR id > $1)
  AND ($2::text IS NULL OR position(lower($2) IN lower(name || ' ' || description)) > 0)
  AND ($3::text IS NULL OR engine_type = $3)
  AND ($4::text IS NULL OR task = $4)
ORDER BY id LIMIT $5;

-- name: find_recipe_by_id
SELECT * FROM recipes WHERE id = $1;

-- name: find_recipe_by_name
SELECT * FROM recipes WHERE lower(name) = lower($1);

-- name: insert_recipe
INSERT INTO recipes (id, version, name, description, engine_type, task, fields, created_by, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: update_recipe
UPDATE recipes
SET version = $3, name = $4, description = $5, engine_type = $6, task = $7, fields = $8, updated_at = $9
WHERE id = $1 AND version = $2 RETURNING id;

-- name: delete_recipe
DELETE FROM recipes WHERE id = $1 AND version = $2 RETURNING id;

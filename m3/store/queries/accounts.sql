-- The people of the tenant $1 whose names come after $2, at most $3.
SELECT name, operator, one_time, created_at
FROM accounts WHERE tenant = $1 AND name > $2 AND revoked_at IS NULL ORDER BY name LIMIT $3

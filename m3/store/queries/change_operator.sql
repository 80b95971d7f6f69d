-- Makes the person of the tenant $1 by the name $2 an operator, or where not $3 one no more.
UPDATE accounts SET operator = $3 WHERE tenant = $1 AND name = $2 AND revoked_at IS NULL
RETURNING account_id, name, operator, one_time, created_at

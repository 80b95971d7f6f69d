-- The account of the tenant $1 by the name $2, unless it is revoked.
SELECT account_id, tenant, name, operator, password_hash, one_time
FROM accounts WHERE tenant = $1 AND name = $2 AND revoked_at IS NULL

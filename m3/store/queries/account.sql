-- The account $1, unless it is revoked.
SELECT account_id, tenant, name, operator, password_hash, one_time
FROM accounts WHERE account_id = $1 AND revoked_at IS NULL

-- Locks the account $1, and of the tenant $2 that of the name $3, in one order, so that two that change each other wait.
SELECT account_id FROM accounts
WHERE account_id = $1 OR (tenant = $2 AND name = $3 AND revoked_at IS NULL)
ORDER BY account_id FOR NO KEY UPDATE

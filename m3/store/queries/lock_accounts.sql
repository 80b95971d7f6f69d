-- Locks the accounts $1, and those of the tenant $2 by the names $3, in one order, so that two that change each other wait.
SELECT account_id FROM accounts
WHERE account_id = ANY($1::uuid[]) OR (tenant = $2 AND name = ANY($3::text[]) AND revoked_at IS NULL)
ORDER BY account_id FOR NO KEY UPDATE

-- Whether the tenant $1 has an operator.
SELECT FROM accounts WHERE tenant = $1 AND operator AND revoked_at IS NULL LIMIT 1

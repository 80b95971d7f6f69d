-- Revokes the account of the tenant $1 by the name $2.
UPDATE accounts SET revoked_at = now() WHERE tenant = $1 AND name = $2 AND revoked_at IS NULL RETURNING account_id

-- Revokes the producer key of the tenant $1 with the prefix $2.
UPDATE producer_keys SET revoked_at = now() WHERE tenant = $1 AND prefix = $2 AND revoked_at IS NULL
RETURNING key_id, name

-- Revokes the producer key of the tenant $1 with the prefix $2, or where none has that, of that name.
UPDATE producer_keys SET revoked_at = now() WHERE revoked_at IS NULL AND key_id = (
    SELECT key_id FROM producer_keys WHERE tenant = $1 AND $2 IN (prefix, name) AND revoked_at IS NULL
    ORDER BY prefix = $2 DESC LIMIT 1
)
RETURNING key_id, prefix, name

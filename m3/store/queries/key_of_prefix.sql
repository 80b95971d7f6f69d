-- The producer key of the prefix $1, unless it is revoked.
SELECT key_id, tenant, name, secret_hash FROM producer_keys WHERE prefix = $1 AND revoked_at IS NULL

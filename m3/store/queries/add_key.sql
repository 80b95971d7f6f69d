-- Makes the producer key $1 of the tenant $2 by the name $3, with the prefix $4 and the hash $5, unless there is one of
-- that name.
INSERT INTO producer_keys (key_id, tenant, name, prefix, secret_hash) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING key_id

-- Makes the producer key $1 of the tenant $2 by the name $3, with the prefix $4 and the hash $5, unless there is one of
-- that name, or a person.
INSERT INTO producer_keys (key_id, tenant, name, prefix, secret_hash)
SELECT $1::uuid, $2::text, $3::text, $4::text, $5::bytea
WHERE NOT EXISTS (SELECT FROM accounts WHERE tenant = $2 AND name = $3 AND revoked_at IS NULL)
ON CONFLICT (tenant, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING key_id

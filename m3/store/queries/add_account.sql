-- Makes the account $1 of the tenant $2 by the name $3, unless somebody has it, or a program; $4: an operator's; $5: the
-- hash of a password that is to be changed at the first sign-in.
INSERT INTO accounts (account_id, tenant, name, operator, password_hash, one_time)
SELECT $1::uuid, $2::text, $3::text, $4::boolean, $5::text, true
WHERE NOT EXISTS (SELECT FROM producer_keys WHERE tenant = $2 AND name = $3 AND revoked_at IS NULL)
ON CONFLICT (tenant, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING account_id

-- Makes the account $1 of the tenant $2 by the name $3, unless somebody has it; $4: an operator's; $5: the hash of a
-- password that is to be changed at the first sign-in.
INSERT INTO accounts (account_id, tenant, name, operator, password_hash, one_time) VALUES ($1, $2, $3, $4, $5, true)
ON CONFLICT (tenant, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING account_id

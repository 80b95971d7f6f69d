-- Makes the account $1 of an operator of the tenant $2 by the name $3, with the hash $4 of a password that is to be changed
-- at the first sign-in, where there has been no operator yet.
INSERT INTO accounts (account_id, tenant, name, operator, password_hash, one_time)
SELECT $1::uuid, $2::text, $3::text, true, $4::text, true WHERE NOT EXISTS (SELECT FROM accounts WHERE operator)
ON CONFLICT (tenant, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING account_id

-- Makes the account $1 of the tenant $2 by the name $3, for whom an outside issuer knows as $4, unless it or the name is
-- there.
INSERT INTO accounts (account_id, tenant, name, subject) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING account_id

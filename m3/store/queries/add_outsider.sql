-- Makes the account $1 of the tenant $2 by the name $3, for whom an outside issuer knows as $4, unless it or the name is
-- there, be it a program's.
INSERT INTO accounts (account_id, tenant, name, subject)
SELECT $1::uuid, $2::text, $3::text, $4::text
WHERE NOT EXISTS (SELECT FROM producer_keys WHERE tenant = $2 AND name = $3 AND revoked_at IS NULL)
ON CONFLICT DO NOTHING
RETURNING account_id

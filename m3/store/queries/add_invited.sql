-- Makes the account $1 of the tenant $2 by the name $3 with the password of the hash $4, unless somebody has or had the name,
-- or a program: what those said is told as theirs by name.
INSERT INTO accounts (account_id, tenant, name, password_hash)
SELECT $1::uuid, $2::text, $3::text, $4::text
WHERE NOT EXISTS (SELECT FROM accounts WHERE tenant = $2 AND name = $3)
AND NOT EXISTS (SELECT FROM producer_keys WHERE tenant = $2 AND name = $3)
RETURNING account_id

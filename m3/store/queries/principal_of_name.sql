-- The person, or where $3 the program, of the tenant $1 by the name $2.
SELECT account_id AS principal_id FROM accounts WHERE NOT $3::boolean AND tenant = $1 AND name = $2 AND revoked_at IS NULL
UNION ALL
SELECT key_id FROM producer_keys WHERE $3 AND tenant = $1 AND name = $2 AND revoked_at IS NULL

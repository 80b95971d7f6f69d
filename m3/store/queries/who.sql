-- Who has the account or the producer key $1, as long as that is good, and so is the sign-in $2 where one is named.
SELECT CASE WHEN operator THEN 'operator' ELSE 'person' END AS kind, tenant, name
FROM accounts
WHERE account_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR EXISTS (
    SELECT FROM sign_ins
    WHERE sign_in_id = $2 AND account_id = $1 AND sign_ins.revoked_at IS NULL AND expires_at > now()
))
UNION ALL
SELECT 'program', tenant, name FROM producer_keys WHERE key_id = $1 AND revoked_at IS NULL

-- Who has the account $1, as long as that is good, and so is the sign-in $2.
SELECT CASE WHEN operator THEN 'operator' ELSE 'person' END AS kind, tenant, name
FROM accounts
WHERE account_id = $1 AND revoked_at IS NULL AND EXISTS (
    SELECT FROM sign_ins
    WHERE sign_in_id = $2 AND account_id = $1 AND sign_ins.revoked_at IS NULL AND expires_at > now()
)

-- The account of whom an outside issuer knows as $1, even if it is revoked.
SELECT account_id, tenant, name, CASE WHEN operator THEN 'operator' ELSE 'person' END AS kind,
    revoked_at IS NOT NULL AS revoked
FROM accounts WHERE subject = $1

-- The invites to the thread $1 that were neither taken back nor are over, with the account that made each, and its name.
SELECT prefix, role, made_by, name, invites.created_at, expires_at
FROM invites LEFT JOIN accounts ON account_id = made_by
WHERE thread_id = $1 AND invites.revoked_at IS NULL AND expires_at > now()
ORDER BY invites.created_at, prefix

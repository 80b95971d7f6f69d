-- Who owns the thread $1.
SELECT principal_id FROM members JOIN accounts ON account_id = principal_id
WHERE thread_id = $1 AND role = 'owner' AND revoked_at IS NULL

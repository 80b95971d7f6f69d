-- Who is a member of the thread $1, and as what.
SELECT 'person' AS kind, name, role FROM members JOIN accounts ON account_id = principal_id
WHERE thread_id = $1 AND revoked_at IS NULL
UNION ALL
SELECT 'program', name, role FROM members JOIN producer_keys ON key_id = principal_id
WHERE thread_id = $1 AND revoked_at IS NULL
ORDER BY kind, name

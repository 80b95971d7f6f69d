-- Gives the account $1 the password of the hash $3, as long as it has that of the hash $2; to be changed at the next
-- sign-in where $4 says so.
UPDATE accounts SET password_hash = $3, one_time = $4
WHERE account_id = $1 AND password_hash IS NOT DISTINCT FROM $2 AND revoked_at IS NULL
RETURNING account_id

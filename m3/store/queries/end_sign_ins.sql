-- Ends the sign-ins of the account $1, but for $2.
UPDATE sign_ins SET revoked_at = now()
WHERE account_id = $1 AND sign_in_id IS DISTINCT FROM $2 AND revoked_at IS NULL

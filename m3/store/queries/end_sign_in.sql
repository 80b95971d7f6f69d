-- Ends the sign-in $1.
UPDATE sign_ins SET revoked_at = now() WHERE sign_in_id = $1 AND revoked_at IS NULL

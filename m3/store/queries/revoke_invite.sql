-- Takes the invite of the prefix $2 to the thread $1 back.
UPDATE invites SET revoked_at = now() WHERE thread_id = $1 AND prefix = $2 AND revoked_at IS NULL AND expires_at > now()
RETURNING prefix

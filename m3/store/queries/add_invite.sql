-- Makes the invite of the prefix $1 and the hash $2 to the thread $3, as $4, by the account $5, good for $6; and throws
-- those of the thread away that have not been good for a day.
WITH old AS (
    DELETE FROM invites WHERE thread_id = $3 AND least(expires_at, revoked_at) < now() - interval '1 day'
)
INSERT INTO invites (prefix, secret_hash, thread_id, role, made_by, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6::interval)
RETURNING expires_at

-- Takes the ticket of the hash $1 away, for good: whose it is, as long as that account or producer key is good, and so is
-- the sign-in where it came from one; nothing where it is too late.
WITH taken AS (
    DELETE FROM tickets WHERE ticket_hash = $1
    RETURNING
        (principal ->> 'id')::uuid AS principal_id,
        (principal ->> 'sign_in')::uuid AS sign_in,
        (principal ->> 'expires')::float8 AS expires,
        expires_at > now() AS good
)
SELECT
    CASE WHEN key_id IS NOT NULL THEN 'program' WHEN operator THEN 'operator' ELSE 'person' END AS kind,
    coalesce(accounts.tenant, producer_keys.tenant) AS tenant,
    coalesce(accounts.name, producer_keys.name) AS name,
    principal_id AS id,
    sign_in,
    expires
FROM taken
LEFT JOIN accounts ON account_id = principal_id AND accounts.revoked_at IS NULL AND (
    sign_in IS NULL OR EXISTS (
        SELECT FROM sign_ins
        WHERE sign_in_id = sign_in AND sign_ins.account_id = principal_id
            AND sign_ins.revoked_at IS NULL AND expires_at > now()
    )
)
LEFT JOIN producer_keys ON key_id = principal_id AND producer_keys.revoked_at IS NULL
WHERE good AND (account_id IS NOT NULL OR key_id IS NOT NULL)

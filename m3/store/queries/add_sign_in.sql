-- Signs the account $2 in, for $5, as long as its password is still that of the hash $3: whoever changes it in the same
-- moment waits, and ends this sign-in too. $1 is its id, and $4 the hash of its refresh token. Of the account's others those
-- that have ended go, and past $6 those that were not used for longest.
WITH account AS (
    SELECT account_id, tenant FROM accounts
    WHERE account_id = $2 AND password_hash = $3 AND revoked_at IS NULL FOR SHARE
),
others AS (
    SELECT sign_in_id, revoked_at IS NOT NULL OR expires_at < now() AS ended,
        row_number() OVER (ORDER BY revoked_at IS NOT NULL, refreshed_at DESC) AS place
    FROM sign_ins WHERE account_id IN (SELECT account_id FROM account)
),
gone AS (
    DELETE FROM sign_ins WHERE sign_in_id IN (
        SELECT sign_in_id FROM sign_ins
        WHERE sign_in_id IN (SELECT sign_in_id FROM others WHERE ended OR place >= $6::int)
        FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO sign_ins (sign_in_id, tenant, account_id, refresh_hash, expires_at)
SELECT $1::uuid, tenant, account_id, $4::bytea, now() + $5::interval FROM account
RETURNING sign_in_id

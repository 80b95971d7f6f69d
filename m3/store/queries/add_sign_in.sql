-- Signs the account $2 in, for $5, as long as its password is still that of the hash $3: whoever changes it in the same
-- moment waits, and ends this sign-in too. $1 is its id, and $4 the hash of its refresh token.
WITH account AS (
    SELECT account_id, tenant FROM accounts
    WHERE account_id = $2 AND password_hash = $3 AND revoked_at IS NULL FOR SHARE
)
INSERT INTO sign_ins (sign_in_id, tenant, account_id, refresh_hash, expires_at)
SELECT $1::uuid, tenant, account_id, $4::bytea, now() + $5::interval FROM account
RETURNING sign_in_id

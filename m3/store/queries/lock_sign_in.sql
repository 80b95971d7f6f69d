-- The sign-in $1, as long as it and its account are good, which nobody else renews before the end of the transaction;
-- just_renewed: whether it was renewed within the last $2.
SELECT sign_ins.account_id, refresh_hash, previous_hash, refreshed_at > clock_timestamp() - $2::interval AS just_renewed
FROM sign_ins JOIN accounts USING (account_id)
WHERE sign_in_id = $1 AND sign_ins.revoked_at IS NULL AND expires_at > now() AND accounts.revoked_at IS NULL
FOR UPDATE OF sign_ins

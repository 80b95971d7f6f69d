-- Has the sign-in $1 known by the hash $2 from now on, and for $3.
UPDATE sign_ins
SET previous_hash = refresh_hash, refresh_hash = $2, refreshed_at = clock_timestamp(), expires_at = now() + $3::interval
WHERE sign_in_id = $1

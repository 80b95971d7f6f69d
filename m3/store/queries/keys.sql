-- The producer keys of the tenant $1 whose prefixes come after $2, at most $3, with the threads that they are for and what
-- they are there.
SELECT prefix, name, created_at, threads, roles
FROM producer_keys
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(thread_id ORDER BY thread_id), '{}') AS threads,
        coalesce(array_agg(role ORDER BY thread_id), '{}') AS roles
    FROM members WHERE principal_id = key_id
) AS its_threads
WHERE tenant = $1 AND prefix > $2 AND revoked_at IS NULL ORDER BY prefix LIMIT $3

-- The producer keys of the tenant $1 whose prefixes come after $2, at most $3, with the threads that they are for.
SELECT prefix, name, created_at, threads, reads
FROM producer_keys
LEFT JOIN LATERAL (
    SELECT array_agg(thread_id ORDER BY thread_id) AS threads, bool_or(role <> 'feeder') AS reads
    FROM members WHERE principal_id = key_id
) AS its_threads ON true
WHERE tenant = $1 AND prefix > $2 AND revoked_at IS NULL ORDER BY prefix LIMIT $3

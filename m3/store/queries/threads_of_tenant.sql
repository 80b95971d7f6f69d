-- The threads of the tenant $1 whose ids come after $2, at most $3, with the names of their owners.
SELECT thread_id, visibility, owners, members
FROM threads
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(name ORDER BY name) FILTER (WHERE role = 'owner'), '{}') AS owners, count(*) AS members
    FROM members LEFT JOIN accounts ON account_id = principal_id AND revoked_at IS NULL
    WHERE members.thread_id = threads.thread_id
) AS its_members
WHERE m3_tenant_of(thread_id) = $1 AND thread_id > $2 ORDER BY thread_id LIMIT $3

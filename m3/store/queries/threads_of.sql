-- The threads that the principal $2 of the tenant $1 finds, whose ids come after $4, at most $5: those that it is a member
-- of and, where $3, those that are open. With when the newest message of each was said. Each half has its own limit, so
-- that no more of it is read.
SELECT
    *,
    (SELECT timestamp FROM dialogue WHERE dialogue.thread_id = found.thread_id ORDER BY seq DESC LIMIT 1) AS last_at
FROM (
    (
        SELECT thread_id, visibility, role, head FROM members JOIN threads USING (thread_id)
        WHERE principal_id = $2 AND thread_id > $4
        ORDER BY thread_id LIMIT $5
    )
    UNION ALL
    (
        SELECT thread_id, visibility, NULL, head FROM threads
        WHERE $3::boolean AND visibility = 'open' AND m3_tenant_of(thread_id) = $1 AND thread_id > $4
            AND NOT EXISTS (SELECT FROM members WHERE members.thread_id = threads.thread_id AND principal_id = $2)
        ORDER BY thread_id LIMIT $5
    )
    ORDER BY thread_id LIMIT $5
) AS found
ORDER BY thread_id

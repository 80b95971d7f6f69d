-- The threads of the tenant $1 whose ids come after $2, at most $3, with the names of their owners, and how many members
-- each has, and what $4 is in it. Who is revoked by now counts as neither. With when the newest message of each was said.
SELECT
    thread_id, visibility,
    (SELECT role FROM members WHERE members.thread_id = found.thread_id AND principal_id = $4) AS role,
    head,
    (SELECT timestamp FROM dialogue WHERE dialogue.thread_id = found.thread_id ORDER BY seq DESC LIMIT 1) AS last_at,
    owners, members
FROM (
    SELECT thread_id, visibility, head FROM threads
    WHERE m3_tenant_of(thread_id) = $1 AND thread_id > $2 ORDER BY thread_id LIMIT $3
) AS found
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(accounts.name ORDER BY accounts.name) FILTER (WHERE role = 'owner'), '{}') AS owners,
        count(*) AS members
    FROM members
    LEFT JOIN accounts ON account_id = principal_id AND accounts.revoked_at IS NULL
    LEFT JOIN producer_keys ON key_id = principal_id AND producer_keys.revoked_at IS NULL
    WHERE members.thread_id = found.thread_id AND (account_id IS NOT NULL OR key_id IS NOT NULL)
) AS its_members
ORDER BY thread_id

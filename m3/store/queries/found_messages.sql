-- The newest $5 messages of the thread $1 before the number $4 that have all of the terms $2, or all of the terms $3 where
-- there are such, newest first. What has them is found first, whatever the planner takes a term for: to read the thread
-- from its end would take long where they are rare.
WITH found AS MATERIALIZED (
    SELECT seq FROM search_terms
    WHERE thread_id = $1 AND seq < $4 AND (terms @> $2::bigint[] OR terms @> $3::bigint[])
),
newest AS (
    SELECT seq FROM found ORDER BY seq DESC LIMIT $5
)
SELECT d.*, (SELECT seq FROM dialogue WHERE message_id = d.reply_id) AS reply_seq
FROM newest JOIN dialogue AS d ON d.thread_id = $1 AND d.seq = newest.seq
ORDER BY d.seq DESC

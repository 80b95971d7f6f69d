-- The newest $5 messages of the thread $1 before the number $4 that have all of the terms $2, or all of the terms $3 where
-- there are such, newest first. Among the thread's last messages they are looked for one by one, which ends soon where a
-- term is in many; only where those are not enough all that have the terms are, whatever the planner takes a term for: to
-- read a long thread from its end would take long where they are rare.
WITH last AS MATERIALIZED (
    SELECT seq, terms @> $2::bigint[] OR coalesce(terms @> $3::bigint[], false) AS found
    FROM search_terms WHERE thread_id = $1 AND seq < $4
    ORDER BY seq DESC LIMIT 1000
),
enough AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE found) >= $5 AS enough, min(seq) AS first FROM last
),
earlier AS MATERIALIZED (
    SELECT seq FROM search_terms
    WHERE NOT (SELECT enough FROM enough)
        AND thread_id = $1 AND seq < (SELECT first FROM enough) AND (terms @> $2::bigint[] OR terms @> $3::bigint[])
),
newest AS (
    SELECT seq FROM last WHERE found
    UNION ALL
    SELECT seq FROM earlier
    ORDER BY seq DESC LIMIT $5
)
SELECT d.*, (SELECT seq FROM dialogue WHERE message_id = d.reply_id) AS reply_seq
FROM newest JOIN dialogue AS d ON d.thread_id = $1 AND d.seq = newest.seq
ORDER BY d.seq DESC

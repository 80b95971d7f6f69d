-- The settings of the thread $1 in its first row and, by number, what waits for the agent in it, with the seconds for
-- which it has waited: the oldest $2 messages of each lane.
WITH waiting AS (
    (SELECT * FROM dialogue WHERE thread_id = $1 AND fate = 'pending' AND source = 'user' ORDER BY seq LIMIT $2)
    UNION ALL
    (SELECT * FROM dialogue WHERE thread_id = $1 AND fate = 'pending' AND source = 'api' ORDER BY seq LIMIT $2)
)
SELECT
    CASE WHEN row_number() OVER (ORDER BY d.seq) = 1 THEN threads.settings END AS settings,
    extract(epoch FROM clock_timestamp() - d.timestamp)::float8 AS age,
    d.*, NULL::bigint AS reply_seq
FROM threads LEFT JOIN waiting AS d USING (thread_id)
WHERE threads.thread_id = $1
ORDER BY d.seq

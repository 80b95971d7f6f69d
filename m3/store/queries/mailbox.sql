-- The settings of the thread $1 and the last number of what waits for the agent in it, both in the first row; and, by
-- number, what waits with the seconds for which it has waited: the oldest $2 messages of programs, and the oldest $3
-- of people.
WITH waiting AS (
    (SELECT * FROM dialogue WHERE thread_id = $1 AND fate = 'pending' AND source = 'user' ORDER BY seq LIMIT $3)
    UNION ALL
    (SELECT * FROM dialogue WHERE thread_id = $1 AND fate = 'pending' AND source = 'api' ORDER BY seq LIMIT $2)
),
thread AS (
    SELECT settings, (SELECT max(rev) FROM dialogue WHERE thread_id = $1 AND fate = 'pending') AS newest
    FROM threads WHERE thread_id = $1
)
SELECT
    CASE WHEN row_number() OVER (ORDER BY d.seq) = 1 THEN thread.settings END AS settings,
    thread.newest,
    extract(epoch FROM clock_timestamp() - d.timestamp)::float8 AS age,
    d.*, NULL::bigint AS reply_seq
FROM thread LEFT JOIN waiting AS d ON true
ORDER BY d.seq

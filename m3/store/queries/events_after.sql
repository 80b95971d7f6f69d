-- What happened in the thread $1 after the number $2 and up to $3, in order, at most $4: each message at its own number,
-- and its last change at the change's. A change that was followed by another of the same message is no more.
-- Each part has its own limit, and the reply is looked up row by row: whatever the planner takes the table for, no more
-- is read than the limit.
SELECT happened.*, (SELECT seq FROM dialogue WHERE message_id = happened.reply_id) AS reply_seq
FROM (
    (
        SELECT *, seq AS number FROM dialogue
        WHERE thread_id = $1 AND seq > $2 AND seq <= $3
        ORDER BY seq LIMIT $4
    )
    UNION ALL
    (
        SELECT *, rev AS number FROM dialogue
        WHERE thread_id = $1 AND rev > $2 AND rev <= $3 AND rev <> seq
        ORDER BY rev LIMIT $4
    )
    ORDER BY number
    LIMIT $4
) AS happened
ORDER BY number

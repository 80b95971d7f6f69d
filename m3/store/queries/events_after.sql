-- What happened in the thread $1 after the number $2 and up to $3, in order, at most $4: each message at its own number,
-- and its last change at the change's. A change that was followed by another of the same message is no more.
WITH happened AS (
    SELECT *, seq AS number FROM dialogue WHERE thread_id = $1 AND seq > $2 AND seq <= $3
    UNION ALL
    SELECT *, rev AS number FROM dialogue WHERE thread_id = $1 AND rev > $2 AND rev <= $3 AND rev <> seq
    ORDER BY number
    LIMIT $4
)
SELECT happened.*, reply.seq AS reply_seq
FROM happened LEFT JOIN dialogue AS reply ON reply.message_id = happened.reply_id
ORDER BY number

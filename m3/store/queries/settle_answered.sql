-- Marks what the replies $1 answer, and returns all that they answer, in order, and which are fresh. A late reply still
-- mends a failure, and takes back a cancellation.
WITH settled AS (
    UPDATE dialogue AS d SET fate = 'answered', reply_id = reply.message_id, reason = NULL
    FROM dialogue AS reply
    WHERE reply.message_id = ANY ($1::uuid[])
      AND d.message_id = ANY (reply.in_reply_to)
      AND d.thread_id = reply.thread_id
      AND d.fate NOT IN ('answered', 'merged')
    RETURNING d.*, reply.seq AS reply_seq
)
SELECT *, true AS fresh FROM settled
UNION ALL
SELECT d.*, reply.seq, false
FROM dialogue AS d JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.reply_id = ANY ($1::uuid[])
ORDER BY thread_id, seq

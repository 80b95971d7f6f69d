-- The oldest $4 messages of the thread $1 after the number $2 and before $3, oldest first.
SELECT d.*, (SELECT seq FROM dialogue WHERE message_id = d.reply_id) AS reply_seq
FROM dialogue AS d
WHERE thread_id = $1 AND seq > $2 AND seq < $3
ORDER BY seq
LIMIT $4

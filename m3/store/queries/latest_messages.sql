-- The newest $3 messages of the thread $1 before the number $2, newest first.
SELECT d.*, (SELECT seq FROM dialogue WHERE message_id = d.reply_id) AS reply_seq
FROM dialogue AS d
WHERE thread_id = $1 AND seq < $2
ORDER BY seq DESC
LIMIT $3

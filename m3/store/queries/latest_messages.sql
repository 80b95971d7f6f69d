-- The newest $3 messages of the thread $1 before the number $2, newest first.
SELECT d.*, reply.seq AS reply_seq
FROM dialogue AS d LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.thread_id = $1 AND d.seq < $2
ORDER BY d.seq DESC
LIMIT $3

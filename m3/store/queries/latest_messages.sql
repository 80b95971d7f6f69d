-- The newest $2 messages of the thread $1, newest first.
SELECT d.*, reply.seq AS reply_seq
FROM dialogue AS d LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.thread_id = $1
ORDER BY d.seq DESC
LIMIT $2

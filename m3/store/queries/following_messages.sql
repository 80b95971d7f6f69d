-- The oldest $4 messages of the thread $1 after the number $2 and before $3, oldest first.
SELECT d.*, reply.seq AS reply_seq
FROM dialogue AS d LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.thread_id = $1 AND d.seq > $2 AND d.seq < $3
ORDER BY d.seq
LIMIT $4

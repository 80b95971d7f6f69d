-- What happened in the thread $1 after the number $2, oldest first, at most $3.
SELECT d.*, reply.seq AS reply_seq
FROM dialogue AS d LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.thread_id = $1 AND d.rev > $2
ORDER BY d.rev
LIMIT $3

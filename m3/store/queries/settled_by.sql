-- The messages whose reply is one of $1, or which are among $2, and have a fate.
SELECT d.*, reply.seq AS reply_seq
FROM dialogue AS d LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE (d.reply_id = ANY ($1::uuid[]) OR d.message_id = ANY ($2::uuid[])) AND d.fate IN ('answered', 'failed')

-- Marks what the replies $1 answer. A late reply still mends a failure.
UPDATE dialogue AS d SET fate = 'answered', reply_id = reply.message_id, reason = NULL
FROM dialogue AS reply
WHERE reply.message_id = ANY ($1::uuid[])
  AND d.message_id = ANY (reply.in_reply_to)
  AND d.thread_id = reply.thread_id
  AND d.fate IN ('pending', 'failed')

-- The oldest message of the thread $1 that waits for the agent.
SELECT d.*, NULL::bigint AS reply_seq
FROM dialogue AS d
WHERE d.thread_id = $1 AND d.fate = 'pending'
ORDER BY d.seq
LIMIT 1

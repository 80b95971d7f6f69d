-- The summaries of the $2 threads that follow the thread $1 and have one, in order, as they are kept.
SELECT thread_id, summary_until AS until, summary AS text, summary_sealed AS sealed FROM threads
WHERE thread_id > $1 AND summary IS NOT NULL
ORDER BY thread_id
LIMIT $2

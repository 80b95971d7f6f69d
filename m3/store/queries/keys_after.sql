-- The keys of the $3 threads that follow the thread $1, in order, but for those wrapped with the master key $2, if any.
SELECT thread_id, master, wrapped FROM thread_keys
WHERE thread_id > $1 AND master IS DISTINCT FROM $2
ORDER BY thread_id
LIMIT $3

-- Takes the row locks of the threads $1, making those that do not exist, always in the same order so that two recorders
-- cannot deadlock. "WHERE false" locks an existing row without writing it.
INSERT INTO threads (thread_id)
SELECT unnest($1::text[]) ORDER BY 1
ON CONFLICT (thread_id) DO UPDATE SET head = threads.head WHERE false

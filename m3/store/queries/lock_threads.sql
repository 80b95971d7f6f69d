-- Takes the row locks of the threads $1, always in the same order so that two recorders cannot deadlock.
SELECT thread_id FROM threads WHERE thread_id = ANY ($1::text[]) ORDER BY thread_id FOR UPDATE

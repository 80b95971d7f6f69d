-- Makes the threads $1 where they do not exist yet.
INSERT INTO threads (thread_id)
SELECT unnest($1::text[]) ORDER BY 1
ON CONFLICT (thread_id) DO NOTHING

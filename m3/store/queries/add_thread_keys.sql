-- Keeps the keys $3 of the threads $1, wrapped with the master keys $2, unless a thread has one: the first one counts.
INSERT INTO thread_keys (thread_id, master, wrapped)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) AS new (thread_id, master, wrapped) ORDER BY thread_id
ON CONFLICT (thread_id) DO NOTHING

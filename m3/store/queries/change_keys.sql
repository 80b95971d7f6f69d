-- Gives the threads $1, as far as they have the keys $2, the keys $4, wrapped with the master keys $3.
UPDATE thread_keys SET master = new.master, wrapped = new.wrapped
FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[]) AS new (thread_id, was, master, wrapped)
WHERE thread_keys.thread_id = new.thread_id AND thread_keys.wrapped = new.was

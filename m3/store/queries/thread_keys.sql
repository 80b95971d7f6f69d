-- The keys of the threads $1, as far as they have one, each wrapped with the master key of that name.
SELECT thread_id, master, wrapped FROM thread_keys WHERE thread_id = ANY ($1::text[])

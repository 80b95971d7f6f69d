-- Makes the thread $1, with the visibility $2, unless it is there.
INSERT INTO threads (thread_id, visibility) VALUES ($1, $2) ON CONFLICT (thread_id) DO NOTHING RETURNING thread_id

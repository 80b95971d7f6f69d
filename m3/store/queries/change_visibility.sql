-- Gives the thread $1 the visibility $2; returns it where that was another.
UPDATE threads SET visibility = $2 WHERE thread_id = $1 AND visibility <> $2 RETURNING thread_id

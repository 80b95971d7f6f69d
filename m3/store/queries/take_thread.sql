-- Takes the thread $1 for this session, if it is free. The other key space of advisory locks is the migrations'.
SELECT pg_try_advisory_lock(hashtextextended($1, 0))

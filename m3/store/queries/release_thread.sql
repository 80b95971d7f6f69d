-- Gives the thread $1 back.
SELECT pg_advisory_unlock(hashtextextended($1, 0))

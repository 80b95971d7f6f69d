-- Holds who is an operator of the tenant $1 until the end of the transaction, so that of two who go one is left. The other
-- key spaces of advisory locks are the threads', the migrations' and the names'.
SELECT pg_advisory_xact_lock(5503, hashtext($1::text))

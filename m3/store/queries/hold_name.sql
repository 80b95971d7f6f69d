-- Holds the name $2 of the tenant $1, which a person or a program is to have, until the end of the transaction: one in two
-- tables is kept by no index. The other key spaces of advisory locks are the threads' and the migrations'.
SELECT pg_advisory_xact_lock(5502, hashtext($1::text || ' ' || $2::text))

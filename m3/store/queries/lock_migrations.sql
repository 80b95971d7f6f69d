-- One process at a time migrates; freed at the end of the transaction.
SELECT pg_advisory_xact_lock(5501, 1)

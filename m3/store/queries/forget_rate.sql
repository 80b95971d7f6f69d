-- Begins anew to count $1.
DELETE FROM rate_counters WHERE key = $1

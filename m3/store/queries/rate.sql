-- How many of $1 were counted in the window that runs, and its end in seconds from now.
SELECT amount, extract(epoch FROM expires_at - now())::float AS remaining
FROM rate_counters WHERE key = $1 AND expires_at > now()

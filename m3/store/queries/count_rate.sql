-- Counts $2 more of $1, in a window of $3 that begins with the first; returns how many that makes.
INSERT INTO rate_counters AS counter (key, amount, expires_at) VALUES ($1, $2, now() + $3::interval)
ON CONFLICT (key) DO UPDATE SET
    amount = excluded.amount + CASE WHEN counter.expires_at > now() THEN counter.amount ELSE 0 END,
    expires_at = CASE WHEN counter.expires_at > now() THEN counter.expires_at ELSE excluded.expires_at END
RETURNING amount

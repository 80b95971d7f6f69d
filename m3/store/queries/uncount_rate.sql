-- Takes one of $1 back, where its window is not over.
UPDATE rate_counters SET amount = amount - 1 WHERE key = $1 AND expires_at > now() AND amount > 0

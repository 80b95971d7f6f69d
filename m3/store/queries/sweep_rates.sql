-- Removes what was counted in windows that are over.
DELETE FROM rate_counters WHERE expires_at <= now()

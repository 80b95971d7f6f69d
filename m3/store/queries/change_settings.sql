-- Gives the thread $1 the settings $2, making it if it does not exist.
INSERT INTO threads (thread_id, settings) VALUES ($1, $2::jsonb)
ON CONFLICT (thread_id) DO UPDATE SET settings = excluded.settings

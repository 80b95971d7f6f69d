-- Whose turns the last $2 of the thread $1 were, newest first.
SELECT lane FROM turns WHERE thread_id = $1 ORDER BY ended_at DESC LIMIT $2

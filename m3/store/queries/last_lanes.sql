-- Whose turns the last $2 of the thread $1 were, newest first. One that was interrupted was nobody's.
SELECT lane FROM turns WHERE thread_id = $1 AND outcome <> 'interrupted' ORDER BY ended_at DESC LIMIT $2

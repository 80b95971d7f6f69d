-- Gives the thread $1 the visibility $2.
UPDATE threads SET visibility = $2 WHERE thread_id = $1

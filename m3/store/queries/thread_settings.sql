-- The settings of the thread $1.
SELECT settings FROM threads WHERE thread_id = $1

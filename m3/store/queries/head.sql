-- The last number given out in the thread $1.
SELECT head FROM threads WHERE thread_id = $1

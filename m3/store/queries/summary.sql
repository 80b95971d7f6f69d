-- What the thread $1 was about up to the number summary_until.
SELECT summary, summary_until FROM threads WHERE thread_id = $1

-- What the thread $1 was about up to the number summary_until, and whether that is sealed.
SELECT summary, summary_until, summary_sealed FROM threads WHERE thread_id = $1

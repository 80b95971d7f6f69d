-- What tells whether anything in the mailbox of the thread $1 is new: the last number of what waits, and the settings.
SELECT
    (SELECT max(rev) FROM dialogue WHERE thread_id = $1 AND fate = 'pending') AS newest,
    settings
FROM threads WHERE thread_id = $1

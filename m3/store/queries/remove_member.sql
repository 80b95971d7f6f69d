-- Has the principal $2 be no member of the thread $1 any more.
DELETE FROM members WHERE thread_id = $1 AND principal_id = $2 RETURNING role

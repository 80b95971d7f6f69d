-- Marks the messages $1 of the threads $2 as failed for the reasons $3, unless their fate is known already.
UPDATE dialogue AS d SET fate = 'failed', reason = failed.reason
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS failed (message_id, thread_id, reason)
WHERE d.message_id = failed.message_id AND d.thread_id = failed.thread_id AND d.fate = 'pending'

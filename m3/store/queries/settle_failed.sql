-- Marks the messages $1 of the threads $2 as failed for the reasons $3, unless their fate is known already, and returns
-- them all.
WITH failed AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[]) AS f (message_id, thread_id, reason)
),
settled AS (
    UPDATE dialogue AS d SET fate = 'failed', reason = failed.reason
    FROM failed
    WHERE d.message_id = failed.message_id AND d.thread_id = failed.thread_id AND d.fate = 'pending'
    RETURNING d.*, NULL::bigint AS reply_seq
)
SELECT * FROM settled
UNION ALL
SELECT d.*, reply.seq
FROM failed JOIN dialogue AS d USING (message_id, thread_id)
LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.fate <> 'pending'

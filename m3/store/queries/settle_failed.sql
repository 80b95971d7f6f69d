-- Marks the messages $1 of the threads $2 as failed for the reasons $3, unless their fate is known already, each with
-- the next number of its thread, and returns them all. Needs the locks of lock_threads.
WITH failed AS (
    SELECT DISTINCT ON (message_id) *
    FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS f (message_id, thread_id, reason, place)
    ORDER BY message_id, place
),
fresh AS (
    SELECT failed.*, row_number() OVER (PARTITION BY thread_id ORDER BY place) AS step
    FROM failed JOIN dialogue AS d USING (message_id, thread_id)
    WHERE d.fate = 'pending'
),
numbered AS (
    UPDATE threads SET head = head + added.total
    FROM (SELECT thread_id, count(*) AS total FROM fresh GROUP BY thread_id) AS added
    WHERE threads.thread_id = added.thread_id
    RETURNING threads.thread_id, threads.head - added.total AS base
),
settled AS (
    UPDATE dialogue AS d SET fate = 'failed', reason = fresh.reason, rev = base + step
    FROM fresh JOIN numbered USING (thread_id)
    WHERE d.message_id = fresh.message_id
    RETURNING d.*, NULL::bigint AS reply_seq
)
SELECT * FROM settled
UNION ALL
SELECT d.*, reply.seq
FROM failed JOIN dialogue AS d USING (message_id, thread_id)
LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.fate <> 'pending'
ORDER BY thread_id, rev

-- Gives the messages $1 of the threads $2 the fates $3 for the reasons $4, each with the next number of its thread, and
-- returns them all, and which are fresh. $5: the reply that a merged message shares. $6: the turn that came to this, if one did.
-- $7: the number of the change that this is an answer to, if it is to one.
-- Only what is pending gets a fate, and only what failed or was cancelled becomes pending again. A turn that is known
-- has had its effect: its repetition must not undo what was asked for since.
-- Needs the locks of lock_threads.
WITH told AS (
    SELECT DISTINCT ON (message_id) *
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::bigint[])
    WITH ORDINALITY AS t (message_id, thread_id, new_fate, new_reason, new_reply_id, turn_id, answered_rev, place)
    ORDER BY message_id, place
),
fresh AS (
    SELECT told.*, row_number() OVER (PARTITION BY thread_id ORDER BY place) AS step
    FROM told JOIN dialogue AS d USING (message_id, thread_id)
    WHERE CASE WHEN new_fate = 'pending' THEN d.fate IN ('failed', 'cancelled') ELSE d.fate = 'pending' END
      AND (told.answered_rev IS NULL OR told.answered_rev = d.rev)
      AND NOT EXISTS (SELECT FROM turns WHERE turns.turn_id = told.turn_id)
),
numbered AS (
    UPDATE threads SET head = head + added.total
    FROM (SELECT thread_id, count(*) AS total FROM fresh GROUP BY thread_id) AS added
    WHERE threads.thread_id = added.thread_id
    RETURNING threads.thread_id, threads.head - added.total AS base
),
changed AS (
    UPDATE dialogue AS d
    SET fate = new_fate, reason = new_reason, reply_id = new_reply_id, rev = base + step
    FROM fresh JOIN numbered USING (thread_id)
    WHERE d.message_id = fresh.message_id
    RETURNING d.*
)
SELECT changed.*, reply.seq AS reply_seq, true AS fresh
FROM changed LEFT JOIN dialogue AS reply ON reply.message_id = changed.reply_id
UNION ALL
SELECT d.*, reply.seq, false
FROM told JOIN dialogue AS d USING (message_id, thread_id)
LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE NOT EXISTS (SELECT FROM fresh WHERE fresh.message_id = d.message_id)
ORDER BY thread_id, rev

-- Inserts the messages that are not there yet, each with the next number of its thread, in the order given, and
-- returns them all, those that were there too, and which are fresh.
-- Needs the locks of lock_threads, so that what another recorder has just committed is seen here.
-- $1 message ids, $2 threads, $3 sources, $4 contents, $5 interfaces, $6 authors, $7 origins,
-- $8 what they reply to: uuid arrays written as text, since SQL has no ragged arrays; $9 whether they were cancelled;
-- $10 their traceparents, or nothing; $11 whether their contents are sealed; $12 what they are found by: bigint arrays
-- written as text, or null where that is not known
WITH incoming AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                         $9::boolean[], $10::text[], $11::boolean[], $12::text[])
    WITH ORDINALITY AS i
        (message_id, thread_id, source, content, interface, author, origin, in_reply_to, cancelled, traceparent, sealed,
         terms, place)
),
fresh AS (
    SELECT i.*, row_number() OVER (PARTITION BY thread_id ORDER BY place) AS step
    FROM incoming AS i
    WHERE NOT EXISTS (SELECT FROM dialogue AS d WHERE d.message_id = i.message_id)
),
numbered AS (
    UPDATE threads SET head = head + added.total
    FROM (SELECT thread_id, count(*) AS total FROM fresh GROUP BY thread_id) AS added
    WHERE threads.thread_id = added.thread_id
    RETURNING threads.thread_id, threads.head - added.total AS base
),
inserted AS (
    INSERT INTO dialogue
        (thread_id, role, content, source, interface, message_id, seq, rev, author, in_reply_to, cancelled, origin, fate,
         traceparent, sealed)
    SELECT
        fresh.thread_id,
        CASE source WHEN 'assistant' THEN 'assistant' ELSE 'user' END,
        content, source, interface, message_id,
        base + step, base + step,
        author, in_reply_to::uuid[], cancelled, origin,
        CASE source WHEN 'assistant' THEN NULL ELSE 'pending' END,
        nullif(traceparent, ''),
        sealed
    FROM fresh JOIN numbered USING (thread_id)
    ORDER BY place
    RETURNING *
),
searchable AS (
    INSERT INTO search_terms (thread_id, seq, terms)
    SELECT fresh.thread_id, base + step, terms::bigint[]
    FROM fresh JOIN numbered USING (thread_id)
    WHERE terms IS NOT NULL
)
SELECT inserted.*, NULL::bigint AS reply_seq, true AS fresh FROM inserted
UNION ALL
SELECT d.*, reply.seq, false
FROM incoming JOIN dialogue AS d USING (message_id) LEFT JOIN dialogue AS reply ON reply.message_id = d.reply_id
ORDER BY thread_id, seq

-- The $2 messages that follow the id $1, in its order, as they are kept, and whether they have what they are found by.
SELECT id, message_id, thread_id, seq, content, sealed,
       EXISTS (SELECT FROM search_terms AS s WHERE s.thread_id = d.thread_id AND s.seq = d.seq) AS searchable
FROM dialogue AS d
WHERE id > $1
ORDER BY id
LIMIT $2

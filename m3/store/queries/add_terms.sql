-- Keeps what the messages of the ids $1, of the threads $2 with the numbers $3, are found by: $4, bigint arrays written as
-- text. What has such stays as it is.
INSERT INTO search_terms (id, thread_id, seq, terms)
SELECT id, thread_id, seq, terms::bigint[]
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[]) AS new (id, thread_id, seq, terms)
ON CONFLICT (id) DO NOTHING

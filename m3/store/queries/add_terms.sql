-- Keeps what the messages of the threads $1 with the numbers $2 are found by: $3, bigint arrays written as text. What has
-- such stays as it is.
INSERT INTO search_terms (thread_id, seq, terms)
SELECT thread_id, seq, terms::bigint[]
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS new (thread_id, seq, terms)
ON CONFLICT (thread_id, seq) DO NOTHING

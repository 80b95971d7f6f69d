-- Puts the sealed contents $3 in the place of the plain contents $2 of the messages of the ids $1, which are found by $4
-- then: bigint arrays written as text. Needs the locks of lock_threads.
WITH changed AS (
    UPDATE dialogue AS d SET content = new.content, sealed = true
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS new (id, was, content, terms)
    WHERE d.id = new.id AND NOT d.sealed AND d.content = new.was
    RETURNING d.thread_id, d.seq, new.terms::bigint[] AS terms
)
INSERT INTO search_terms (thread_id, seq, terms) SELECT * FROM changed
ON CONFLICT (thread_id, seq) DO UPDATE SET terms = excluded.terms

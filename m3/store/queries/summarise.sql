-- Keeps the summaries $3 of the threads $1 up to the numbers $2, of each thread the one that reaches farthest, unless
-- there is one that reaches as far. $4: whether they are sealed.
UPDATE threads SET summary = new.text, summary_until = new.until, summary_sealed = new.sealed
FROM (
    SELECT DISTINCT ON (thread_id) *
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::boolean[]) AS told (thread_id, until, text, sealed)
    ORDER BY thread_id, until DESC
) AS new
WHERE threads.thread_id = new.thread_id AND threads.summary_until < new.until

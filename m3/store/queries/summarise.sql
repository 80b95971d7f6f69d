-- Keeps the summaries $3 of the threads $1 up to the numbers $2, unless there is one that reaches as far.
UPDATE threads SET summary = new.text, summary_until = new.until
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS new (thread_id, until, text)
WHERE threads.thread_id = new.thread_id AND threads.summary_until < new.until

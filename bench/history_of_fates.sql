-- Fills $1 threads with $2 numbers each: of five in a row, four are messages, and the fifth says that the first of them,
-- a program's, was too old to be answered. The other three are the agent's.
INSERT INTO dialogue (thread_id, role, content, source, interface, message_id, seq, rev, origin, fate, reason)
SELECT
    'fates-' || thread,
    CASE WHEN expired THEN 'user' ELSE 'assistant' END,
    'All that is said here was said before, and somebody will want to read it again.',
    CASE WHEN expired THEN 'api' ELSE 'assistant' END,
    'http_api',
    gen_random_uuid(),
    number,
    CASE WHEN expired THEN number + 4 ELSE number END,
    'bench',
    CASE WHEN expired THEN 'expired' END,
    CASE WHEN expired THEN 'The message was too old by the time of its turn.' END
FROM
    generate_series(0, $1::integer - 1) AS thread,
    generate_series(1, $2::bigint) AS numbers (number),
    LATERAL (SELECT number % 5 = 1 AS expired) AS kind
WHERE number % 5 <> 0
ORDER BY numbers.number, thread

-- Fills the table with rounds $1 to $2: in each of them one message in each of $3 threads, so that a thread lies scattered
-- over the table.
INSERT INTO dialogue (
    thread_id, role, content, source, timestamp, interface, message_id, seq, rev, origin, fate
)
SELECT
    'thread-' || lpad(thread::text, 5, '0'),
    'user',
    left(repeat('All that is said here was said before, and somebody will want to read it again. ', 3),
         20 + (hashint8(round * $3 + thread) & 127)),
    'user',
    now() - interval '1 day' + (round * $3 + thread) * interval '10 ms',
    'http_api',
    lpad(to_hex(round * $3 + thread), 32, '0')::uuid,
    round,
    round,
    'bench',
    'ignored'
FROM generate_series($1::bigint, $2::bigint) AS round, generate_series(0, $3::bigint - 1) AS thread
ORDER BY round, thread

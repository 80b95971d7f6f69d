-- Fills the table with what was said in the moments from $1 up to $2: in each of them one message in each of 5 long
-- threads and in 5 of 995 short ones, so that a thread lies as scattered as in a room that lives.
-- Every fifth message of a thread is the agent's, in reply to the four before it. Ids follow time, as UUIDv7 do.
INSERT INTO dialogue (
    thread_id, role, content, source, timestamp, interface, message_id, seq, rev, in_reply_to, origin, fate, reply_id
)
SELECT
    CASE WHEN place < 5 THEN 'long-' || place ELSE 'short-' || moment % 199 + 199 * (place - 5) END,
    CASE WHEN is_reply THEN 'assistant' ELSE 'user' END,
    left(repeat('All that is said here was said before, and somebody will want to read it again. ', 3),
         20 + (hashint8(moment * 10 + place) & 127)),
    CASE WHEN is_reply THEN 'assistant' WHEN seq % 5 = 1 THEN 'user' ELSE 'api' END,
    now() - interval '1 day' + moment * interval '10 ms',
    'http_api',
    lpad(to_hex(moment * 10 + place), 32, '0')::uuid,
    seq,
    seq,
    CASE WHEN is_reply THEN ARRAY(
        SELECT lpad(to_hex((moment - before * step) * 10 + place), 32, '0')::uuid FROM generate_series(4, 1, -1) AS before
    ) ELSE '{}' END,
    'bench',
    CASE WHEN NOT is_reply THEN 'answered' END,
    CASE WHEN NOT is_reply THEN lpad(to_hex((moment + (-seq % 5 + 5) % 5 * step) * 10 + place), 32, '0')::uuid END
FROM
    generate_series($1::bigint, $2::bigint - 1) AS moment,
    generate_series(0, 9) AS place,
    LATERAL (SELECT CASE WHEN place < 5 THEN 1 ELSE 199 END AS step) AS pace,
    LATERAL (SELECT moment / step + 1 AS seq) AS number,
    LATERAL (SELECT seq % 5 = 0 AS is_reply) AS kind
ORDER BY moment, place

-- Keeps what turns took: $1 ids, $2 threads, $3 lanes, $4 outcomes, $5 replies, $6 models, $7 starts, $8 durations,
-- $9 times to the first token, $10 prompt tokens, $11 completion tokens, $12 whether they are estimated, $13 attempts,
-- $14 reasons
INSERT INTO turns
    (turn_id, thread_id, lane, outcome, reply_id, model, started_at, duration, first_token,
     prompt_tokens, completion_tokens, estimated, attempts, reason)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::timestamptz[],
                     $8::float8[], $9::float8[], $10::int[], $11::int[], $12::boolean[], $13::int[], $14::text[])
ON CONFLICT (turn_id) DO NOTHING

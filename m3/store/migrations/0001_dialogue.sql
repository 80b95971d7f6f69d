-- A thread and the last number given out in it. Its row lock is what makes the numbers dense.
CREATE TABLE threads (
    thread_id  text        PRIMARY KEY,
    head       bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    settings   jsonb       NOT NULL DEFAULT '{}'
);

-- Every message of every thread.
CREATE TABLE dialogue (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    thread_id   text        NOT NULL REFERENCES threads,
    role        text        NOT NULL CHECK (role IN ('user', 'assistant')),
    content     text        NOT NULL,
    source      text        NOT NULL CHECK (source IN ('user', 'api', 'assistant')),
    timestamp   timestamptz NOT NULL DEFAULT clock_timestamp(),
    interface   text        NOT NULL CHECK (interface IN ('http_api', 'websocket')),
    message_id  uuid        NOT NULL UNIQUE,
    seq         bigint      NOT NULL,              -- its number in the thread, from 1
    rev         bigint      NOT NULL,              -- the number of its last change
    author      text,
    in_reply_to uuid[]      NOT NULL DEFAULT '{}',
    origin      text        NOT NULL,              -- the queue of the process that accepted it
    fate        text        CHECK (fate IN ('pending', 'answered', 'failed')),
    reply_id    uuid,                              -- the message_id of the reply, once answered
    reason      text,                              -- a sentence for a person, once failed
    UNIQUE (thread_id, seq),
    CHECK ((source = 'assistant') = (role = 'assistant')),
    CHECK ((source = 'assistant') = (fate IS NULL))
);

CREATE INDEX dialogue_by_rev ON dialogue (thread_id, rev);
CREATE INDEX dialogue_pending ON dialogue (thread_id, seq) WHERE fate = 'pending';
CREATE INDEX dialogue_by_reply ON dialogue (reply_id) WHERE reply_id IS NOT NULL;

-- More that can become of a message than an answer or a failure.
ALTER TABLE dialogue DROP CONSTRAINT dialogue_fate_check;
ALTER TABLE dialogue ADD CONSTRAINT dialogue_fate_check CHECK (
    fate IN ('pending', 'answered', 'merged', 'expired', 'shed', 'ignored', 'cancelled', 'failed')
) NOT VALID; -- the old rows have only what the old check allowed

-- Whether somebody stopped the reply before it was whole.
ALTER TABLE dialogue ADD COLUMN cancelled boolean NOT NULL DEFAULT false;

-- What the agent is told of the part of a thread that no longer fits into its context.
ALTER TABLE threads ADD COLUMN summary text, ADD COLUMN summary_until bigint NOT NULL DEFAULT 0;

-- By lane, so that what programs have waiting can be counted from the index alone.
DROP INDEX dialogue_pending;
CREATE INDEX dialogue_pending ON dialogue (thread_id, source, seq) WHERE fate = 'pending';
-- By the last change, so that the newest of what waits is found without reading the others.
CREATE INDEX dialogue_newest_pending ON dialogue (thread_id, rev) WHERE fate = 'pending';
-- What the agent may be shown again, found also behind a flood of what was shed.
CREATE INDEX dialogue_dealt_with ON dialogue (thread_id, seq)
    WHERE fate IN ('answered', 'ignored', 'cancelled', 'failed');

-- What each turn of the agent took, whatever came of it.
CREATE TABLE turns (
    turn_id           uuid             PRIMARY KEY,
    thread_id         text             NOT NULL REFERENCES threads,
    lane              text             NOT NULL CHECK (lane IN ('user', 'api')),
    outcome           text             NOT NULL CHECK (outcome IN ('answered', 'cancelled', 'failed', 'interrupted')),
    reply_id          uuid,                                -- the message_id of the reply, if there is one
    model             text             NOT NULL,
    started_at        timestamptz      NOT NULL,           -- by the agent's clock
    ended_at          timestamptz      NOT NULL DEFAULT clock_timestamp(),
    duration          double precision NOT NULL,           -- seconds, retries included
    first_token       double precision,                    -- seconds from the start
    prompt_tokens     integer          NOT NULL,
    completion_tokens integer          NOT NULL,
    estimated         boolean          NOT NULL,           -- the model's server did not count the tokens
    attempts          integer          NOT NULL,           -- how often the model was asked
    reason            text                                 -- a sentence for a person, where it failed
);

CREATE INDEX turns_by_thread ON turns (thread_id, ended_at);

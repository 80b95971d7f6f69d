-- What is said may be sealed (m3/sealing): then its text is ciphertext, for who has the key.
ALTER TABLE dialogue ADD COLUMN sealed boolean NOT NULL DEFAULT false;
ALTER TABLE threads ADD COLUMN summary_sealed boolean NOT NULL DEFAULT false;

-- Each thread's key, wrapped with the master key of that name. Without its row a thread cannot be read ever again. It may
-- be there before its thread is: what is accepted is sealed before it is recorded.
CREATE TABLE thread_keys (
    thread_id text  PRIMARY KEY,
    master    text  NOT NULL,
    wrapped   bytea NOT NULL
);
CREATE INDEX thread_keys_by_master ON thread_keys (master, thread_id);

-- What messages are found by, as numbers that belong to their thread: one index serves all threads. Apart from the
-- messages, which are read far more often than searched. Has no row of what was not made searchable yet. Nothing of it is
-- shown, but the messages that are found by it: they are what is kept apart. Behind a policy the index would be of no use,
-- since only the owner of the whole server could promise that what looks into it tells nothing.
CREATE TABLE search_terms (
    thread_id text     NOT NULL,
    seq       bigint   NOT NULL,
    terms     bigint[] NOT NULL,
    PRIMARY KEY (thread_id, seq)
);
CREATE INDEX search_terms_by_term ON search_terms USING gin (terms);

CALL m3_keep_apart('thread_keys', 'm3_tenant_of(thread_id)');

-- Invites to threads: whoever of the tenant shows one that is good becomes a member. The invite itself is shown once, when
-- it is made.
CREATE TABLE invites (
    prefix      text        PRIMARY KEY,               -- by which people know it
    secret_hash bytea       NOT NULL,                  -- SHA-256, since what is hashed is random and long
    thread_id   text        NOT NULL REFERENCES threads ON DELETE CASCADE,
    role        text        NOT NULL CHECK (role IN ('member', 'reader')),
    made_by     uuid        REFERENCES accounts,       -- it is good as long as they may; null: at the machine
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX invites_by_thread ON invites (thread_id);
CALL m3_keep_apart('invites', 'm3_tenant_of(thread_id)');

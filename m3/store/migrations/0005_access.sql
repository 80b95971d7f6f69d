-- Who may come in, and what they may do. Tenants' rows are kept apart twice: by what each query asks for, and by the
-- policies below, for sessions that speak for one tenant.

-- A thread's key is its id, with its tenant before it unless that is the default one (m3/tenants.py).
CREATE FUNCTION m3_tenant_of(key text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN strpos(key, '.') > 0 THEN split_part(key, '.', 1) ELSE 'default' END;

-- Whom the session speaks for. Nobody where that was not said: then no row is there for it.
CREATE FUNCTION m3_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN current_setting('m3.tenant', true);

ALTER TABLE threads ADD COLUMN visibility text NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'open'));
CREATE INDEX threads_open ON threads (thread_id) WHERE visibility = 'open';

-- People, and operators, who are people that see to the others.
CREATE TABLE accounts (
    account_id    uuid        PRIMARY KEY,
    tenant        text        NOT NULL,
    name          text        NOT NULL,
    operator      boolean     NOT NULL DEFAULT false,
    password_hash text,                                -- argon2id; null for who signs in elsewhere
    one_time      boolean     NOT NULL DEFAULT false,  -- the password is to be changed at the first sign-in
    subject       text        UNIQUE,                  -- the issuer and its name for them, for who signs in elsewhere
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX accounts_by_name ON accounts (tenant, name) WHERE revoked_at IS NULL;

-- Programs' keys, one a feed. The key itself is shown once, when it is made.
CREATE TABLE producer_keys (
    key_id      uuid        PRIMARY KEY,
    tenant      text        NOT NULL,
    name        text        NOT NULL,
    prefix      text        NOT NULL UNIQUE,           -- by which people know it
    secret_hash bytea       NOT NULL,                  -- SHA-256, since what is hashed is random and long
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
CREATE UNIQUE INDEX producer_keys_by_name ON producer_keys (tenant, name) WHERE revoked_at IS NULL;

-- Each time that somebody signed in, and the token by which they stay so. It changes with each use, and one that is used
-- again ends the sign-in: somebody else has it too.
CREATE TABLE sign_ins (
    sign_in_id    uuid        PRIMARY KEY,
    tenant        text        NOT NULL,
    account_id    uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    refresh_hash  bytea       NOT NULL,
    previous_hash bytea,                               -- good for a few seconds more, for who asks twice at once
    refreshed_at  timestamptz NOT NULL DEFAULT now(),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz
);
CREATE INDEX sign_ins_by_account ON sign_ins (account_id);

-- How people and programs stand to threads. The principal is an account or a producer key.
CREATE TABLE members (
    thread_id    text        NOT NULL REFERENCES threads ON DELETE CASCADE,
    principal_id uuid        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('owner', 'member', 'reader', 'feeder')),
    added_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, principal_id)
);
CREATE INDEX members_by_principal ON members (principal_id);

-- What opens one socket, once and soon. After a crash they are gone, which asks for a new one.
CREATE UNLOGGED TABLE tickets (
    ticket_hash bytea       PRIMARY KEY,
    principal   jsonb       NOT NULL,
    expires_at  timestamptz NOT NULL
);

-- How often something was done in a window of time, where all doors must count together.
CREATE UNLOGGED TABLE rate_counters (
    key        text        PRIMARY KEY,
    amount     bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX rate_counters_by_end ON rate_counters (expires_at);

-- What was done by whom that somebody may ask about later. It only grows.
CREATE TABLE audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant  text        NOT NULL,
    actor   text        NOT NULL,                      -- who, as far as is known
    action  text        NOT NULL,                      -- what, such as login, refused, member_added
    target  text        NOT NULL DEFAULT '',           -- on what
    outcome text        NOT NULL CHECK (outcome IN ('done', 'refused')),
    address text        NOT NULL DEFAULT '',           -- from where
    detail  text        NOT NULL DEFAULT ''
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);

CREATE FUNCTION m3_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit only grows' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION m3_refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM CURRENT_USER;

-- The role in which doors ask on behalf of one tenant. Roles belong to the whole server: another room there, or its
-- administrator, may have made it before. Who may not make it does without this second wall, and `m3 doctor` says so.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'm3_tenant') THEN
        BEGIN
            CREATE ROLE m3_tenant NOLOGIN NOBYPASSRLS;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;  -- made in the same moment
        END;
    END IF;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT m3_tenant TO %I', current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO m3_tenant', current_schema());
    GRANT SELECT ON threads, dialogue, turns TO m3_tenant;
    GRANT INSERT, UPDATE ON threads TO m3_tenant;
    GRANT SELECT, INSERT, UPDATE, DELETE ON members TO m3_tenant;
    GRANT SELECT, INSERT, UPDATE ON accounts, producer_keys, sign_ins TO m3_tenant;
    GRANT SELECT, INSERT ON audit TO m3_tenant;
    GRANT SELECT, INSERT, UPDATE, DELETE ON tickets, rate_counters TO m3_tenant;
EXCEPTION
    WHEN insufficient_privilege OR undefined_object THEN
        RAISE WARNING 'the role m3_tenant cannot be made or used here';
END $$;

ALTER TABLE threads       ENABLE ROW LEVEL SECURITY;
ALTER TABLE dialogue      ENABLE ROW LEVEL SECURITY;
ALTER TABLE turns         ENABLE ROW LEVEL SECURITY;
ALTER TABLE members       ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts      ENABLE ROW LEVEL SECURITY;
ALTER TABLE producer_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE sign_ins      ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit         ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON threads       USING (m3_tenant_of(thread_id) = m3_tenant());
CREATE POLICY of_tenant ON dialogue      USING (m3_tenant_of(thread_id) = m3_tenant());
CREATE POLICY of_tenant ON turns         USING (m3_tenant_of(thread_id) = m3_tenant());
CREATE POLICY of_tenant ON members       USING (m3_tenant_of(thread_id) = m3_tenant());
CREATE POLICY of_tenant ON accounts      USING (tenant = m3_tenant());
CREATE POLICY of_tenant ON producer_keys USING (tenant = m3_tenant());
CREATE POLICY of_tenant ON sign_ins      USING (tenant = m3_tenant());
CREATE POLICY of_tenant ON audit         USING (tenant = m3_tenant());

-- Who may come in, and what they may do. Tenants' rows are kept apart twice: by what each query asks for, and by the
-- policies below, for sessions that speak for one tenant.

-- A thread's key is its id, with its tenant before it unless that is the default one (m3/tenants.py). Not strict, or it
-- would be called for each row instead of becoming part of the query.
CREATE FUNCTION m3_tenant_of(key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN strpos(key, '.') > 0 THEN split_part(key, '.', 1) ELSE 'default' END;

-- Whether it is one of the room's own users, who write the dialogue: the tables' owner, or whom that gave the rights to.
CREATE FUNCTION m3_is_ours(who name) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN who <> 'm3_tenant' AND has_table_privilege(who, 'dialogue'::regclass, 'INSERT');

-- Whom the session speaks for. Nobody where that was not said: then no row is there for it. Nobody either where it is not
-- ours: the role is of the whole server, and another room's user may take it here.
CREATE FUNCTION m3_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN m3_is_ours(session_user) THEN current_setting('m3.tenant', true) END;

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

-- Doors ask on behalf of one tenant in the role m3_tenant, which sees the tenant's rows alone, and nothing of a table that
-- does not say whose its rows are. queries/wall.sql has the role made wherever it is not there, and says what it may do.
-- What is selected in a policy is looked up once a query, and not for each row.
CREATE PROCEDURE m3_keep_apart(relation regclass, tenant text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format(
        'CREATE POLICY of_tenant ON %s USING ((SELECT m3_is_ours(current_user)) OR %s = (SELECT m3_tenant()))',
        relation, tenant
    );
END $$;
CALL m3_keep_apart('threads', 'm3_tenant_of(thread_id)');
CALL m3_keep_apart('dialogue', 'm3_tenant_of(thread_id)');
CALL m3_keep_apart('turns', 'm3_tenant_of(thread_id)');
CALL m3_keep_apart('members', 'm3_tenant_of(thread_id)');
CALL m3_keep_apart('accounts', 'tenant');
CALL m3_keep_apart('producer_keys', 'tenant');
CALL m3_keep_apart('sign_ins', 'tenant');
CALL m3_keep_apart('audit', 'tenant');

-- What the second wall between tenants lacks, as the statements that make it, in their order; none where it stands. It is
-- the role m3_tenant, which is of the whole server, what it may do here, and the policies of the migrations.
WITH role AS (
    SELECT oid, rolsuper OR rolbypassrls AS sees_all FROM pg_roles WHERE rolname = 'm3_tenant'
),
rights (relation, privilege) AS (
    SELECT to_regclass(relation), unnest(string_to_array(privileges, ', '))
    FROM (VALUES
        ('threads', 'SELECT, INSERT, UPDATE'),
        ('dialogue', 'SELECT'),
        ('turns', 'SELECT'),
        ('members', 'SELECT, INSERT, UPDATE, DELETE'),
        ('accounts', 'SELECT, INSERT, UPDATE'),
        ('producer_keys', 'SELECT, INSERT, UPDATE'),
        ('sign_ins', 'SELECT, INSERT, UPDATE'),
        ('invites', 'SELECT, INSERT, UPDATE, DELETE'),
        ('audit', 'SELECT, INSERT'),
        ('thread_keys', 'SELECT, INSERT'),
        ('search_terms', 'SELECT')
    ) AS needed (relation, privileges)
    WHERE to_regclass(relation) IS NOT NULL
),
lacking (step, statement) AS (
    SELECT 1, 'CREATE ROLE m3_tenant NOLOGIN' WHERE NOT EXISTS (SELECT FROM role)
    UNION ALL
    SELECT 2, 'ALTER ROLE m3_tenant NOSUPERUSER NOBYPASSRLS' FROM role WHERE sees_all
    UNION ALL
    SELECT 3, format('GRANT m3_tenant TO %I', session_user) FROM pg_roles
    WHERE rolname = session_user AND NOT rolsuper AND NOT EXISTS (
        SELECT FROM role WHERE pg_has_role(
            session_user, role.oid,
            CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
        )
    )
    UNION ALL
    SELECT 4, format('GRANT USAGE ON SCHEMA %I TO m3_tenant', current_schema())
    WHERE NOT EXISTS (SELECT FROM role WHERE NOT sees_all AND has_schema_privilege(oid, current_schema(), 'USAGE'))
    UNION ALL
    SELECT 5, format('GRANT %s ON %s TO m3_tenant', privilege, string_agg(relation::text, ', ')) FROM rights
    WHERE NOT EXISTS (SELECT FROM role WHERE NOT sees_all AND has_table_privilege(oid, relation, privilege))
    GROUP BY privilege
    UNION ALL
    SELECT 6, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', oid::regclass) FROM pg_class
    WHERE oid IN (SELECT polrelid FROM pg_policy WHERE polname = 'of_tenant') AND NOT relrowsecurity
)
SELECT statement FROM lacking ORDER BY step, statement

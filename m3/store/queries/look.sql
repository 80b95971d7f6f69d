-- What whoever looks at the database has to know of it. Of the tables nothing is known where they are not there.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_number,
    current_setting('transaction_read_only')::bool AS read_only,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
    has_table_privilege(to_regclass('dialogue'), 'INSERT') AS may_write,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS places,
    to_regclass('schema_migrations') IS NOT NULL AS migrated,
    clock_timestamp() AS now

-- The migrations that this database has.
SELECT version, checksum FROM schema_migrations

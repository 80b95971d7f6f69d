-- Notes the migration $1 with its checksum $2.
INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)

-- The process of the server that this session is.
SELECT pg_backend_pid()

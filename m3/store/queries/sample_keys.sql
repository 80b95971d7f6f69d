-- At most $1 threads' keys of each master key that keys are wrapped with.
SELECT thread_id, master, wrapped
FROM (SELECT *, row_number() OVER (PARTITION BY master ORDER BY thread_id) AS place FROM thread_keys) AS keys
WHERE place <= $1

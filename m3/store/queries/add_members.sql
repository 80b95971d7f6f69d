-- Makes the principal $1 a member of the threads $2 as $3, or changes what it is there; returns those that are there, and
-- where it was something else.
INSERT INTO members (thread_id, principal_id, role)
SELECT thread_id, $1::uuid, $3::text FROM threads WHERE thread_id = ANY($2::text[])
ON CONFLICT (thread_id, principal_id) DO UPDATE SET role = excluded.role WHERE members.role <> excluded.role
RETURNING thread_id

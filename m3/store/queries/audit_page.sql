-- The $3 newest of the audit of the tenant $1 that come before the number $2, newest first.
SELECT id, at, actor, action, target, outcome, address, detail FROM audit
WHERE tenant = $1 AND id < $2
ORDER BY id DESC
LIMIT $3

-- How each of the principals $1, with its sign-in of $2 where it has one, stands to the thread beside it in $3, in that
-- order. kind is null of who is nobody any more, visibility where there is no such thread.
SELECT
    CASE WHEN operator THEN 'operator' WHEN account_id IS NOT NULL THEN 'person' WHEN key_id IS NOT NULL THEN 'program' END
        AS kind,
    visibility,
    role
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS asked (principal_id, sign_in_id, thread_id, place)
LEFT JOIN accounts ON account_id = asked.principal_id AND accounts.revoked_at IS NULL AND (
    asked.sign_in_id IS NULL OR EXISTS (
        SELECT FROM sign_ins
        WHERE sign_ins.sign_in_id = asked.sign_in_id AND sign_ins.account_id = asked.principal_id
            AND sign_ins.revoked_at IS NULL AND expires_at > now()
    )
)
LEFT JOIN producer_keys ON key_id = asked.principal_id AND producer_keys.revoked_at IS NULL
LEFT JOIN threads USING (thread_id)
LEFT JOIN members USING (thread_id, principal_id)
ORDER BY place

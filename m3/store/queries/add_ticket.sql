-- Keeps the ticket of the hash $1, which is the principal $2's for $3; and throws some away that nobody used in time.
WITH old AS (
    DELETE FROM tickets WHERE ticket_hash IN (
        SELECT ticket_hash FROM tickets WHERE expires_at < now() LIMIT 10 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO tickets (ticket_hash, principal, expires_at) VALUES ($1, $2, now() + $3::interval)

-- Takes the ticket of the hash $1 away, for good: whose it is, and whether it still was.
DELETE FROM tickets WHERE ticket_hash = $1 RETURNING principal, expires_at > now() AS good

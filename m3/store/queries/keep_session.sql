-- Nothing, so that the server hears from this session.
SELECT true

-- Where in which trace the message is, as the W3C writes it; null where that follows from its id.
ALTER TABLE dialogue ADD COLUMN traceparent text;

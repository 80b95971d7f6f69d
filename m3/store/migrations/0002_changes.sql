-- A change of a message takes a number of its thread; what was never changed is found by its seq.
DROP INDEX dialogue_by_rev;
CREATE INDEX dialogue_changes ON dialogue (thread_id, rev) WHERE rev <> seq;

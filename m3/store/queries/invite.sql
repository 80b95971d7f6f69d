-- To which thread the invite of the prefix $1 and the hash $2 is, and who made it, whether or not it is good.
SELECT thread_id, made_by FROM invites WHERE prefix = $1 AND secret_hash = $2

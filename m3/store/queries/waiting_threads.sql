-- Threads with a message that has waited for the agent for longer than $1.
SELECT thread_id FROM dialogue
WHERE fate = 'pending' AND timestamp < now() - $1::interval
GROUP BY thread_id
ORDER BY min(id)
LIMIT 1000

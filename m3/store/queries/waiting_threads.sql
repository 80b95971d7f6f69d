-- Threads with a message that has waited for the agent for longer than $1, those of people first; but not where it is
-- told to let them wait.
SELECT dialogue.thread_id, max(source) AS lane -- user comes after api
FROM dialogue JOIN threads USING (thread_id)
WHERE fate = 'pending' AND timestamp < now() - $1::interval AND settings ->> 'pause' IS DISTINCT FROM 'wait'
GROUP BY dialogue.thread_id
ORDER BY lane DESC, min(id)
LIMIT 1000

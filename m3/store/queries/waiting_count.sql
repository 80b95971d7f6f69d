-- How many messages of the source $2 wait for the agent in the thread $1, counted up to $3.
SELECT count(*) AS waiting FROM (
    SELECT FROM dialogue WHERE thread_id = $1 AND source = $2 AND fate = 'pending' LIMIT $3
) AS counted

-- What the agent has dealt with in the thread $1 before the message numbered $2: the newest $3 messages with their
-- replies, each reply right after what it answers, in the order in which they were said.
WITH asked AS (
    SELECT * FROM dialogue
    WHERE thread_id = $1 AND seq < $2 AND source <> 'assistant'
    ORDER BY seq DESC
    LIMIT $3
),
said AS (
    SELECT message_id, seq, seq AS after_seq FROM asked
    UNION ALL
    SELECT reply.message_id, reply.seq, max(asked.seq)
    FROM asked JOIN dialogue AS reply ON reply.message_id = asked.reply_id
    GROUP BY reply.message_id, reply.seq
)
SELECT d.*, NULL::bigint AS reply_seq
FROM said JOIN dialogue AS d USING (message_id)
ORDER BY said.after_seq, said.seq

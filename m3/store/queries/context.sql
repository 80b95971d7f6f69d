-- What the agent is shown of the thread $1 beside the messages $2 that it is to answer: the newest $3 others that it has
-- dealt with, after the number up to which there is a summary, and their replies, each right after what it answers, in
-- the order in which they were said. Neither what was too much to be answered nor what waits for another turn.
WITH asked AS (
    SELECT * FROM dialogue
    WHERE thread_id = $1 AND source <> 'assistant' AND message_id <> ALL ($2::uuid[])
      AND fate IN ('answered', 'ignored', 'cancelled', 'failed')
      AND seq > (SELECT summary_until FROM threads WHERE thread_id = $1)
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

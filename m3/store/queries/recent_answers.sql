-- What programs said in the thread $1 and had answered by a turn that ended in the last $2 seconds, but
-- not by a reply that was cancelled: the newest $3, newest first. Two agents may have had a turn for the same reply.
SELECT d.*, reply.seq AS reply_seq
FROM (
    SELECT DISTINCT reply_id FROM turns
    WHERE thread_id = $1 AND ended_at > now() - make_interval(secs => $2)
      AND lane = 'api' AND outcome = 'answered'
) AS ended
JOIN dialogue AS d USING (reply_id)
JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE d.source = 'api' AND d.fate = 'answered'
ORDER BY d.seq DESC
LIMIT $3

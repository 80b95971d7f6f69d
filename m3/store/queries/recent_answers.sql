-- What programs said in the thread $1 and had answered by a turn that ended in the last $2 seconds.
SELECT d.*, reply.seq AS reply_seq
FROM turns
JOIN dialogue AS d ON d.reply_id = turns.reply_id
JOIN dialogue AS reply ON reply.message_id = d.reply_id
WHERE turns.thread_id = $1 AND turns.ended_at > clock_timestamp() - make_interval(secs => $2)
  AND turns.lane = 'api' AND d.source = 'api' AND d.fate = 'answered'

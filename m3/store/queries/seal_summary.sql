-- Puts the sealed summary $3 in the place of the plain one of the thread $1, if that still reaches to the number $2.
UPDATE threads SET summary = $3, summary_sealed = true
WHERE thread_id = $1 AND summary_until = $2 AND NOT summary_sealed

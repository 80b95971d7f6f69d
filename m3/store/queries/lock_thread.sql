-- The thread $1, if it is there, whose members nobody else changes before the end of the transaction.
SELECT visibility FROM threads WHERE thread_id = $1 FOR NO KEY UPDATE

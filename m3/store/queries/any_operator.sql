-- Whether there has been an operator.
SELECT FROM accounts WHERE operator LIMIT 1

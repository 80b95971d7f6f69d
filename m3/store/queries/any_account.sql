-- Whether there has been an account.
SELECT FROM accounts LIMIT 1

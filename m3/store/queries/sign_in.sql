-- The tenant and the name of whoever signed in by the sign-in $1.
SELECT sign_ins.tenant, name FROM sign_ins JOIN accounts USING (account_id) WHERE sign_in_id = $1

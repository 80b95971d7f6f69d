-- The tenants that have operators, and whether one of these chose a password.
SELECT tenant, bool_or(NOT one_time) AS came FROM accounts WHERE operator AND revoked_at IS NULL GROUP BY tenant

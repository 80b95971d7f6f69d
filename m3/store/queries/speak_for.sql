-- Has this session take the role $1 and speak for the tenant $2; of the role none it is its own again.
SELECT set_config('role', $1, false), set_config('m3.tenant', $2, false)

-- Writes down what was done or refused, a row each; $8 says how long ago that was.
INSERT INTO audit (tenant, actor, action, target, outcome, address, detail, at)
SELECT tenant, actor, action, target, outcome, address, detail, clock_timestamp() - ago
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::interval[])
    AS entries (tenant, actor, action, target, outcome, address, detail, ago)

-- The claims that have run out by the store's clock, up to a hundred.
-- KEYS  1 claims
return redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.0f', clock()), 'BYSCORE', 'LIMIT', 0, 100)

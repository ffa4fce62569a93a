-- A flow is throttled, from now on.
-- KEYS  1 flow (hash: since, full; microseconds)
-- ARGV  1 for how long that is remembered, in milliseconds
-- Returns 1 if it was not before.
local time = redis.call('TIME')
local is_new = redis.call('HSET', KEYS[1], 'since', string.format('%.0f', time[1] * 1000000 + time[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return is_new

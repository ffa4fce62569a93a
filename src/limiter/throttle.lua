-- Throttles a flow.
-- KEYS  1 flow (hash: since, count, doublings, full; microseconds)
-- ARGV  1 retention, in milliseconds
-- Returns 1 if it was not throttled before.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local is_new = redis.call('EXISTS', KEYS[1]) == 0
redis.call('HSET', KEYS[1], 'since', now, 'count', 0, 'doublings', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return is_new and 1 or 0

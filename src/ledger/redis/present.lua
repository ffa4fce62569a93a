-- A worker's presence heartbeat.
-- KEYS  1 workers (sorted set: worker -> until when it counts as present, in microseconds)
-- ARGV  1 worker  2 validity of the heartbeat, in microseconds
-- Returns the server's replication epoch, all present workers, whether this one was among them, and the time in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local was_there = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
return { server_history(), redis.call('ZRANGE', KEYS[1], 0, -1), was_there, math.floor(now / 1000) }

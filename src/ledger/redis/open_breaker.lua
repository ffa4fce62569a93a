-- Opens a breaker, or changes the reason of an open one.
-- KEYS  1 breaker (hash: reason, since, probe_at (0: never), wait; times in microseconds)
-- ARGV  1 reason  2 delay of the first probe, in microseconds (0: no probes)
-- Returns 1 if it was closed, else 0.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local was_closed = redis.call('HSETNX', KEYS[1], 'since', string.format('%.0f', now))
redis.call('HSET', KEYS[1], 'reason', ARGV[1])
if was_closed == 1 then
  local wait = tonumber(ARGV[2])
  local probe_at = wait > 0 and string.format('%.0f', now + wait) or '0'
  redis.call('HSET', KEYS[1], 'probe_at', probe_at, 'wait', string.format('%.0f', wait * 2))
end
return was_closed

-- Takes the probe of an open breaker, if it is due.
-- KEYS  1 breaker
-- ARGV  1 maximum delay between probes, in microseconds
-- Returns 1 to the caller that got it, else 0.
local known = redis.call('HMGET', KEYS[1], 'probe_at', 'wait')
local time = redis.call('TIME')
local probe_at, now = tonumber(known[1] or 0), time[1] * 1000000 + time[2]
if probe_at == 0 or probe_at > now then
  return 0
end
local wait = tonumber(known[2])
redis.call('HSET', KEYS[1], 'probe_at', string.format('%.0f', now + wait),
  'wait', string.format('%.0f', math.min(wait * 2, tonumber(ARGV[1]))))
return 1

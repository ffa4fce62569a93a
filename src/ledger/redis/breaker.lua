-- Reads an open breaker.
-- KEYS  1 breaker
-- Returns nothing if it is closed; else the reason, the time it opened (milliseconds), whether a probe is due (0 or 1), and the
-- time of the next probe (milliseconds, 0: never).
local known = redis.call('HMGET', KEYS[1], 'reason', 'since', 'probe_at')
if not known[2] then
  return {}
end
local time = redis.call('TIME')
local probe_at = tonumber(known[3] or 0)
local due = probe_at > 0 and probe_at <= time[1] * 1000000 + time[2]
return { known[1] or '', string.format('%.0f', math.floor(known[2] / 1000)), due and '1' or '0',
  string.format('%.0f', math.floor(probe_at / 1000)) }

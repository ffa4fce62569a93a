-- Changes the list of suppressed numbers, and says so to whoever reads it.
-- KEYS  1 numbers, 2 version
-- ARGV  1 SADD or SREM, then the numbers
-- Returns how many were changed.
local changed = redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
if changed > 0 then
  redis.call('INCR', KEYS[2])
end
return changed

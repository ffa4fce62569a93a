-- Completes a campaign whose counts add up: running, planned to its end, nothing open.
-- KEYS  1 campaign
-- Returns 1 if it did.
local known = redis.call('HMGET', KEYS[1], 'state', 'planned', 'pending', 'sending')
if known[1] ~= 'running' or known[2] ~= '1' or known[3] ~= '0' or known[4] ~= '0' then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'completed', 'reason', '')
redis.call('HSETNX', KEYS[1], 'finished_at', string.format('%.0f', math.floor(clock() / 1000)))
return 1

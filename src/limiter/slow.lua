-- Pauses an account after a 429, and halves its rate for the time after.
-- KEYS  1 state of the account
-- ARGV  1 pause, in microseconds  2 interval after which a tenth is back  3 smallest share of the rate
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local known = redis.call('HMGET', KEYS[1], 'paused_until', 'slowed_at', 'share', 'paused_at')
local paused = tonumber(known[1] or 0)
if known[4] and now < tonumber(known[4]) then
  -- The clock went back: the pause keeps its length.
  paused = paused - (tonumber(known[4]) - now)
end
local till = math.max(paused, now + tonumber(ARGV[1]))
-- Many 429 answers at a time halve the rate once.
if paused <= now then
  local share = 1
  if known[2] then
    local steps = math.floor(math.max(0, now - tonumber(known[2])) / tonumber(ARGV[2]))
    share = math.min(1, tonumber(known[3]) + steps * 0.1)
  end
  redis.call('HSET', KEYS[1], 'slowed_at', string.format('%.0f', till),
    'share', tostring(math.max(tonumber(ARGV[3]), share / 2)))
end
redis.call('HSET', KEYS[1], 'paused_until', string.format('%.0f', till), 'paused_at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((till - now) / 1000) + 3600000)
return 1

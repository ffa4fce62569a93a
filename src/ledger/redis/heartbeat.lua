-- A worker says that it looks after a campaign, and takes its lease if that is free.
-- KEYS  1 campaign  2 workers (hash: worker -> batches it holds, when it said so)
-- ARGV  1 worker  2 batches it holds  3 how long it counts as there, in microseconds
-- Returns whether it leads (0 or 1), and how many batches all hold.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 0, 0 }
end
local time = redis.call('TIME')
local now, lease = time[1] * 1000000 + time[2], tonumber(ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now))
local held = 0
local workers = redis.call('HGETALL', KEYS[2])
for index = 1, #workers, 2 do
  local batches, at = string.match(workers[index + 1], '^(%d+) (%d+)$')
  if tonumber(at) + lease < now then
    redis.call('HDEL', KEYS[2], workers[index])
  else
    held = held + tonumber(batches)
  end
end
local known = redis.call('HMGET', KEYS[1], 'leader', 'lease_until')
if not known[1] or known[1] == ARGV[1] or tonumber(known[2]) < now then
  redis.call('HSET', KEYS[1], 'leader', ARGV[1], 'lease_until', string.format('%.0f', now + lease))
  return { 1, held }
end
return { 0, held }

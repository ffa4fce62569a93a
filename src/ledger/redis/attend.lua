-- A worker says that it attends to a campaign, and takes its lease if that is free.
-- KEYS  1 campaign  2 workers (hash: worker -> batches it holds, when it said so)
-- ARGV  1 worker  2 batches it holds  3 how long it counts as there, in microseconds
-- Returns whether it leads (0 or 1), and how many batches all hold.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 0, 0 }
end
local now, patience = clock(), tonumber(ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now))
local held = 0
local workers = redis.call('HGETALL', KEYS[2])
for index = 1, #workers, 2 do
  local batches, at = parted(workers[index + 1])
  if tonumber(at) + patience < now then
    redis.call('HDEL', KEYS[2], workers[index])
  else
    held = held + tonumber(batches)
  end
end
local lease = redis.call('HMGET', KEYS[1], 'leader', 'lease_until')
if not lease[1] or lease[1] == ARGV[1] or tonumber(lease[2]) < now then
  redis.call('HSET', KEYS[1], 'leader', ARGV[1], 'lease_until', string.format('%.0f', now + patience))
  return { 1, held }
end
return { 0, held }

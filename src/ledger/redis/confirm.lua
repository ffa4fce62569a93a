-- Records that a worker's writes for a campaign exist in a replication epoch.
-- KEYS  1 workers
-- ARGV  1 worker  2 epoch
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry then
  redis.call('HSET', KEYS[1], ARGV[1], string.match(entry, '^%d+ %d+') .. ' ' .. ARGV[2])
end
return 1

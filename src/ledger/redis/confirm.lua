-- What a worker has written of a campaign is there, in this history of the server's data.
-- KEYS  1 workers
-- ARGV  1 worker  2 history
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry then
  redis.call('HSET', KEYS[1], ARGV[1], string.match(entry, '^%d+ %d+') .. ' ' .. ARGV[2])
end
return 1

-- Closes the gap of a campaign: the campaign gets the server's replication epoch, and workers that have not compared their
-- journals are removed.
-- KEYS  1 campaign  2 workers
local history = server_history()
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'history', history)
  redis.call('HDEL', KEYS[1], 'gap', 'gap_since')
  local workers = redis.call('HGETALL', KEYS[2])
  for index = 1, #workers, 2 do
    if string.match(workers[index + 1], '^%d+ %d+ ?(%x*)$') ~= history then
      redis.call('HDEL', KEYS[2], workers[index])
    end
  end
end
return 1

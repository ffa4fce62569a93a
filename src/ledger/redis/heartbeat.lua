-- A worker's heartbeat for a campaign: it also takes the lease if that is free. If the server's replication epoch is not the
-- campaign's, all workers must compare their journals before the campaign gets the new epoch.
-- KEYS  1 campaign  2 workers (hash: worker -> batches it holds, time of its heartbeat in microseconds, epoch)
-- ARGV  1 worker  2 batches it holds  3 validity of the heartbeat, in microseconds  4 the epoch for which it has compared
--         its journal ('': none)  5 minimum time that a new epoch waits for workers, in microseconds
-- Returns whether it leads (0 or 1), the number of batches that all workers hold, and whether the epoch is the campaign's. If
-- not, also the server's epoch, this worker's last heartbeat, when the epoch was detected, the last heartbeat of any silent
-- worker, the silent workers with their last heartbeats, and the campaign's epoch. Those times are milliseconds.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 0, 0, 1 }
end
local time = redis.call('TIME')
local now, lease = time[1] * 1000000 + time[2], tonumber(ARGV[3])
local history = server_history()
local known = redis.call('HMGET', KEYS[1], 'leader', 'lease_until', 'history', 'gap', 'gap_since')
if not known[3] then
  -- An earlier version registered the campaign.
  redis.call('HSET', KEYS[1], 'history', history)
  known[3] = history
end
local own = redis.call('HGET', KEYS[2], ARGV[1])
if known[3] ~= history and known[4] ~= history then
  redis.call('HSET', KEYS[1], 'gap', history, 'gap_since', string.format('%.0f', now))
  known[5] = now
end
if known[3] == history or ARGV[4] == history then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now) .. ' ' .. history)
end
local held, last, silent = 0, 0, {}
local workers = redis.call('HGETALL', KEYS[2])
for index = 1, #workers, 2 do
  local batches, at, of = string.match(workers[index + 1], '^(%d+) (%d+) ?(%x*)$')
  if known[3] ~= history then
    if of ~= history then
      silent[#silent + 1] = workers[index]
      silent[#silent + 1] = math.floor(at / 1000)
    end
    if of ~= history and tonumber(at) > last then
      last = tonumber(at)
    end
  elseif tonumber(at) + lease < now then
    redis.call('HDEL', KEYS[2], workers[index])
  else
    held = held + tonumber(batches)
  end
end
local leads = 0
if not known[1] or known[1] == ARGV[1] or tonumber(known[2]) < now then
  redis.call('HSET', KEYS[1], 'leader', ARGV[1], 'lease_until', string.format('%.0f', now + lease))
  leads = 1
end
if known[3] == history then
  return { leads, held, 1 }
end
-- If the server was emptied, the lost writes are unknown: an operator decides.
if #silent == 0 and known[5] + ARGV[5] <= now and known[3] ~= 'emptied' then
  redis.call('HSET', KEYS[1], 'history', history)
  redis.call('HDEL', KEYS[1], 'gap', 'gap_since')
  return { leads, held, 1 }
end
own = own and string.match(own, '^%d+ (%d+)') or 0
return { leads, held, 0, history, math.floor(own / 1000), math.floor(known[5] / 1000), math.floor(last / 1000), silent, known[3] }

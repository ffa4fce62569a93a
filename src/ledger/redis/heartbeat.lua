-- A worker says that it looks after a campaign, and takes its lease if that is free. Where the server's data are of
-- another history than the campaign's, workers must say first that what they have written is there.
-- KEYS  1 campaign  2 workers (hash: worker -> batches it holds, when it said so in microseconds, and of which
--         history that was)
-- ARGV  1 worker  2 batches it holds  3 how long it counts as there, in microseconds  4 the history for which it
--         has compared what it has written ('': none)  5 for how long a new history waits for workers at least,
--         in microseconds
-- Returns whether it leads (0 or 1), how many batches all hold, and whether the history is the campaign's. If not,
-- also the history, when this worker last said that it is there, when it was noticed, when any of the workers was
-- last heard before, the silent ones with when they were last heard, and the campaign's own history.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return { 0, 0, 1 }
end
local time = redis.call('TIME')
local now, lease = time[1] * 1000000 + time[2], tonumber(ARGV[3])
local history = server_history()
local known = redis.call('HMGET', KEYS[1], 'leader', 'lease_until', 'history', 'gap', 'gap_since')
if not known[3] then
  -- The campaign is from before this was written down.
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
-- What was written of a campaign of an emptied server nobody knows for certain: a person decides.
if #silent == 0 and known[5] + ARGV[5] <= now and known[3] ~= 'emptied' then
  redis.call('HSET', KEYS[1], 'history', history)
  redis.call('HDEL', KEYS[1], 'gap', 'gap_since')
  return { leads, held, 1 }
end
own = own and string.match(own, '^%d+ (%d+)') or 0
return { leads, held, 0, history, math.floor(own / 1000), math.floor(known[5] / 1000), math.floor(last / 1000), silent, known[3] }

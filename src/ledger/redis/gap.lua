-- What the server may have forgotten of a campaign.
-- KEYS  1 campaign  2 workers
-- ARGV  1 worker
-- Returns nothing where there is no gap; else the server's history, when this worker last said that it is there,
-- when the gap was noticed, when any of the workers was last heard before, and those that have not said yet that what
-- they have written is there, with when they were last heard, and the campaign's own history. Times are milliseconds, 0
-- is none.
local known = redis.call('HMGET', KEYS[1], 'history', 'gap', 'gap_since')
local history = server_history()
if not known[1] or known[1] == history then
  return {}
end
local own, last, silent = 0, 0, {}
local workers = redis.call('HGETALL', KEYS[2])
for index = 1, #workers, 2 do
  local at, of = string.match(workers[index + 1], '^%d+ (%d+) ?(%x*)$')
  at = math.floor(at / 1000)
  if workers[index] == ARGV[1] then
    own = at
  end
  if of ~= history then
    silent[#silent + 1] = workers[index]
    silent[#silent + 1] = at
    last = math.max(last, at)
  end
end
local since = known[2] == history and math.floor(known[3] / 1000) or 0
return { history, own, since, last, silent, known[1] }

-- Reads the gap of a campaign: writes that the server may have lost.
-- KEYS  1 campaign  2 workers
-- ARGV  1 worker
-- Returns nothing without a gap; else the server's epoch, this worker's last heartbeat, when the gap was detected, the last
-- heartbeat of any worker that has not compared its journal yet, those workers with their last heartbeats, and the
-- campaign's epoch. Times are milliseconds, 0 for none.
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

-- Moves a campaign to another state where that is legal, or changes the reason of the one it is in.
-- KEYS  1 campaign
-- ARGV  1 state  2 reason ('' is none)  3 the legal moves, each as from>to;
-- Returns 'ok', 'unknown', or the state from which the move is not legal.
local from = redis.call('HGET', KEYS[1], 'state')
if not from then
  return 'unknown'
end
local to = ARGV[1]
if from ~= to and not string.find(ARGV[3], from .. '>' .. to .. ';', 1, true) then
  return from
end
local now = string.format('%.0f', math.floor(clock() / 1000))
redis.call('HSET', KEYS[1], 'state', to, 'reason', ARGV[2])
redis.call('HDEL', KEYS[1], 'held_by')
if to == 'running' then
  if from ~= to then
    -- What a person has let pass is not counted against it again.
    local counts = redis.call('HMGET', KEYS[1], 'accepted', 'rejected', 'in_doubt')
    redis.call('HSET', KEYS[1], 'forgiven_rejected', counts[2],
      'forgiven_settled', counts[1] + counts[2] + counts[3])
  end
  redis.call('HSETNX', KEYS[1], 'started_at', now)
  redis.call('HDEL', KEYS[1], 'finished_at')
elseif to == 'completed' or to == 'cancelled' then
  redis.call('HSETNX', KEYS[1], 'finished_at', now)
end
return 'ok'

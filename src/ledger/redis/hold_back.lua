-- Holds a campaign that runs, until a barrier is lifted.
-- KEYS  1 campaign
-- ARGV  1 the barrier: 'account' or 'flow ID'  2 reason
if redis.call('HGET', KEYS[1], 'state') == 'running' then
  redis.call('HSET', KEYS[1], 'state', 'held', 'held_by', ARGV[1], 'reason', ARGV[2])
end
return 1

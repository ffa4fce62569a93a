-- Says what a campaign waits for, as long as it runs.
-- KEYS  1 campaign
-- ARGV  1 reason ('' is none)
if redis.call('HGET', KEYS[1], 'state') == 'running' then
  redis.call('HSET', KEYS[1], 'reason', ARGV[1])
end
return 1

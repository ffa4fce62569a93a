-- Removes a worker from a campaign, and releases its lease.
-- KEYS  1 campaign  2 workers
-- ARGV  1 worker
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'leader') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'leader', 'lease_until')
end
return 1

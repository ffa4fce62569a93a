-- A worker does not look after a campaign any more, and gives its lease back.
-- KEYS  1 campaign  2 workers
-- ARGV  1 worker
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'leader') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'leader', 'lease_until')
end
return 1

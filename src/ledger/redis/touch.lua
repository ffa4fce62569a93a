-- Marks a campaign as changed, so that every worker reads it.
-- KEYS  1 active (sorted set: campaign -> the version of its last change; '' -> the last version)
-- ARGV  1 campaign
local version = redis.call('ZINCRBY', KEYS[1], 1, '')
redis.call('ZADD', KEYS[1], version, ARGV[1])
return 1

-- A campaign has changed: every worker looks at it.
-- KEYS  1 active (sorted set: campaign -> the version of its last change; '' -> that of all)
-- ARGV  1 campaign
local version = redis.call('ZINCRBY', KEYS[1], 1, '')
redis.call('ZADD', KEYS[1], version, ARGV[1])
return 1

-- Adds messages to the index of recent messages.
-- KEYS  hashes of an account (field: number and campaign; value: batch and position of the message)
-- ARGV  1 retention of a hash, in milliseconds; then for each key the number of fields, and each field with its value
local at = 2
for _, key in ipairs(KEYS) do
  local count = tonumber(ARGV[at])
  local new = redis.call('HSET', key, unpack(ARGV, at + 1, at + 2 * count))
  if new == count and redis.call('HLEN', key) == new then
    redis.call('PEXPIRE', key, ARGV[1])
  end
  at = at + 1 + 2 * count
end
return 1

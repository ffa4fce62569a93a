-- Notes to whom messages are sent.
-- KEYS  hashes of an account (field: number and campaign; value: the message's place)
-- ARGV  1 how long a hash lasts, in milliseconds; then for each key how many fields, and each with its value
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

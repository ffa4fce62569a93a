-- Turns the messages of a claim that has run out to in doubt, or to pending again.
-- KEYS  1 campaign  2 batch  3 meta  4 open  5 claims  6 texts  7 failed  8 again
-- ARGV  1 the claim's token  2 the batch's number  3 resend (0 or 1)  4 the text to the doubt
-- Returns how many messages those were.
local member = ARGV[1] .. ':' .. ARGV[2]
local deadline = redis.call('ZSCORE', KEYS[5], member)
local now = clock()
if not deadline or tonumber(deadline) > now then
  return 0
end
local meta = redis.call('GET', KEYS[3])
local mine = 'sending ' .. ARGV[1]
local state = ARGV[3] == '1' and 'pending' or 'in_doubt'
-- The token stays with the doubt: its worker may come back with proof.
local after = state == 'pending' and state or ('in_doubt @' .. ARGV[1])
local touches, done = {}, 0
for place = 0, (meta and size(meta) or 0) - 1 do
  local number = field(meta, place)
  if redis.call('HGET', KEYS[2], number) == mine then
    redis.call('HSET', KEYS[2], number, after)
    touches[place] = 0
    done = done + 1
  end
end
if done > 0 then
  redis.call('SET', KEYS[3], touched(meta, touches, now))
  count(KEYS[1], { sending = -done, [state] = done })
  if state == 'pending' then
    redis.call('HSET', KEYS[8], ARGV[2], string.format('%.0f', now))
  else
    redis.call('SADD', KEYS[7], ARGV[2])
    redis.call('HSETNX', KEYS[6], 'in_doubt:@', ARGV[4])
    if not open_in(KEYS[2], mine) then
      redis.call('SREM', KEYS[4], ARGV[2])
      redis.call('HDEL', KEYS[8], ARGV[2])
    end
  end
end
redis.call('ZREM', KEYS[5], member)
return done

-- Does what a person decided, for one batch.
-- KEYS  1 campaign  2 batch  3 meta  4 open  5 payload  6 texts  7 failed  8 again
-- ARGV  1 the batch's number  2 from which state  3 to which  4 what stands behind it  5 the text to
--       that  6 a code that is left out unless it is named  7 another, 8 for so many milliseconds
--       9 how long ago a message must have changed, in milliseconds  then the codes, all if there are none
-- Returns for how many messages.
local meta = redis.call('GET', KEYS[3])
if not meta then
  return 0
end
local from, to, word = ARGV[2], ARGV[3], ARGV[4]
local after = word == '' and to or (to .. ' ' .. word)
local now = clock()
local function is_meant(code, place)
  local ago = now / 1000 - struct.unpack('>I6', meta, HEAD + place * ENTRY + 15)
  if ago < tonumber(ARGV[9]) then
    return false
  end
  if #ARGV < 10 then
    return code ~= ARGV[6] and (code ~= ARGV[7] or ago >= tonumber(ARGV[8]))
  end
  for nth = 10, #ARGV do
    if ARGV[nth] == code then
      return true
    end
  end
  return false
end
local touches, done, failed = {}, 0, false
for place = 0, size(meta) - 1 do
  local number = field(meta, place)
  local state, code = parted(redis.call('HGET', KEYS[2], number))
  if state == from and is_meant(code, place) then
    redis.call('HSET', KEYS[2], number, after)
    touches[place] = 0
    done = done + 1
    if from == 'rejected' then
      redis.call('HINCRBY', KEYS[1], 'rejected:' .. code, -1)
    end
    if to ~= 'pending' then
      redis.call('HINCRBY', KEYS[1], to .. ':' .. word, 1)
    end
    state = to
  end
  failed = failed or state == 'rejected' or state == 'in_doubt'
end
if done > 0 then
  redis.call('SET', KEYS[3], touched(meta, touches, clock()))
  count(KEYS[1], { [from] = -done, [to] = done })
  if ARGV[5] ~= '' then
    redis.call('HSETNX', KEYS[6], to .. ':' .. word, ARGV[5])
  end
  if to == 'pending' then
    redis.call('SADD', KEYS[4], ARGV[1])
    redis.call('HSET', KEYS[8], ARGV[1], string.format('%.0f', clock()))
  elseif not open_in(KEYS[2], '') then
    redis.call('SREM', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[8], ARGV[1])
  end
end
if not failed then
  redis.call('SREM', KEYS[7], ARGV[1])
end
return done

-- Records what became of messages, after the answer. Said twice, it counts once.
-- KEYS  1 campaign  2 batch  3 meta  4 open  5 claims  6 payload  7 texts  8 failed  9 again
-- ARGV  1 the claim's token  2 the batch's number  3 the legal moves, each as from>to;
--       then of each message: place, state, what stands behind it, the text to that, the payload
-- Returns how many messages of the campaign are open.
local meta = redis.call('GET', KEYS[3])
if not meta then
  return 0
end
local mine, ran_out = 'sending ' .. ARGV[1], 'in_doubt @' .. ARGV[1]
local now = clock()
-- Read once and written once: a command for each message would cost most of the script's time.
local places, numbers, values = {}, {}, {}
for at = 4, #ARGV, 5 do
  local place = tonumber(ARGV[at])
  if place < size(meta) and not places[place] then
    places[place] = field(meta, place)
    numbers[#numbers + 1] = places[place]
  end
end
if #numbers > 0 then
  for nth, value in ipairs(redis.call('HMGET', KEYS[2], unpack(numbers))) do
    values[numbers[nth]] = value
  end
end
local kept = redis.call('EXISTS', KEYS[6]) == 1
local changed, touches, moved, settled = {}, {}, {}, 0
for at = 4, #ARGV, 5 do
  local place, to, word = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local number = places[place]
  local value = number and values[number]
  local from, before = parted(value or '')
  local legal = value and string.find(ARGV[3], from .. '>' .. to .. ';', 1, true)
  if legal then
    if to == 'pending' then
      -- Back to pending on proof, and only for the claim that has it.
      legal = value == mine or value == ran_out
    elseif from == 'pending' and to == 'accepted' then
      -- Evidence of an earlier try; what was never claimed was never taken.
      legal = string.byte(meta, HEAD + place * ENTRY + 14) > 0
    elseif from == 'sending' and to ~= 'accepted' then
      -- What another claim is sending by now is not settled by what an old one was told, but for
      -- one thing: that the provider took it.
      legal = value == mine
    end
  end
  if legal then
    values[number] = word == '' and to or (to .. ' ' .. word)
    changed[number] = true
    touches[place] = 0
    moved[from] = (moved[from] or 0) - 1
    moved[to] = (moved[to] or 0) + 1
    if from == 'rejected' then
      redis.call('HINCRBY', KEYS[1], 'rejected:' .. before, -1)
    end
    if to ~= 'pending' and (from == 'sending' or from == 'pending') then
      settled = settled + 1
    end
    if to == 'rejected' or to == 'skipped' then
      redis.call('HINCRBY', KEYS[1], to .. ':' .. word, 1)
    end
    if ARGV[at + 3] ~= '' then
      redis.call('HSETNX', KEYS[7], to .. ':' .. word, ARGV[at + 3])
    end
    if to == 'rejected' or to == 'in_doubt' then
      redis.call('SADD', KEYS[8], ARGV[2])
      if ARGV[at + 4] ~= '' then
        redis.call('HSET', KEYS[6], place, ARGV[at + 4])
        kept = true
      end
    elseif kept and to ~= 'pending' and from ~= 'pending' then
      redis.call('HDEL', KEYS[6], place)
    end
  end
end
if next(changed) then
  local news = {}
  for number in pairs(changed) do
    news[#news + 1] = number
    news[#news + 1] = values[number]
  end
  redis.call('HSET', KEYS[2], unpack(news))
  redis.call('SET', KEYS[3], touched(meta, touches, now))
  count(KEYS[1], moved)
end
local open, held = open_in(KEYS[2], mine)
if not open then
  redis.call('SREM', KEYS[4], ARGV[2])
  redis.call('HDEL', KEYS[9], ARGV[2])
end
if not held then
  redis.call('ZREM', KEYS[5], ARGV[1] .. ':' .. ARGV[2])
end
if settled > 0 then
  -- The last twelve seconds' settled messages, for the rate.
  local second = math.floor(now / 1000000)
  local slot = 'tick:' .. (second % 12)
  local at, sum = parted(redis.call('HGET', KEYS[1], slot) or '')
  if tonumber(at) == second then
    settled = settled + tonumber(sum)
  end
  redis.call('HSET', KEYS[1], slot, string.format('%.0f', second) .. ' ' .. settled)
end
local left = redis.call('HMGET', KEYS[1], 'pending', 'sending')
return tonumber(left[1]) + tonumber(left[2])

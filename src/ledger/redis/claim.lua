-- Claims messages of a batch, before their request goes out. The same claim again is granted again.
-- KEYS  1 campaign  2 batch  3 meta  4 claims (sorted by the deadline)
-- ARGV  1 digest of the recipients  2 the messages' places, a byte each  3 the claim's token
--       4 how long it holds, in microseconds  5 the batch's number  6 whether it is a probe (0 or 1)
-- Returns 'granted' and the places, 'closed' (the campaign does not run), 'missing' (the batch is to be
-- written down first), 'other' (it has other recipients), 'unknown' (no such campaign).
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return { 'unknown' }
end
local meta = redis.call('GET', KEYS[3])
if not meta then
  return { 'missing' }
end
if string.sub(meta, 1, HEAD) ~= ARGV[1] then
  return { 'other' }
end
local places, fields = {}, {}
for at = 1, #ARGV[2] do
  local place = string.byte(ARGV[2], at)
  if place < size(meta) then
    places[#places + 1] = place
    fields[#fields + 1] = field(meta, place)
  end
end
local probed = ARGV[6] == '1' and state == 'held' and redis.call('HEXISTS', KEYS[1], 'held_by') == 1
if state ~= 'running' and not probed then
  return { 'closed' }
end
if #fields == 0 then
  return { 'granted', '' }
end
local mine = 'sending ' .. ARGV[3]
local granted, values, attempts, fresh = {}, {}, {}, 0
for nth, value in ipairs(redis.call('HMGET', KEYS[2], unpack(fields))) do
  if value == 'pending' then
    values[#values + 1] = fields[nth]
    values[#values + 1] = mine
    attempts[places[nth]] = 1
    fresh = fresh + 1
  end
  if value == 'pending' or value == mine then
    granted[#granted + 1] = string.char(places[nth])
  end
end
if #granted == 0 then
  return { 'granted', '' }
end
local now = clock()
if fresh > 0 then
  redis.call('HSET', KEYS[2], unpack(values))
  redis.call('SET', KEYS[3], touched(meta, attempts, now))
  count(KEYS[1], { pending = -fresh, sending = fresh })
end
redis.call('ZADD', KEYS[4], string.format('%.0f', now + tonumber(ARGV[4])), ARGV[3] .. ':' .. ARGV[5])
return { 'granted', table.concat(granted) }

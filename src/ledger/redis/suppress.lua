-- Changes the suppression list, and stores each change, so that workers can follow.
-- KEYS  1 numbers (set)  2 version  3 changes (sorted by version: '<version> <+ or -><number>')
--       4 when and by whom each number was added (hash by number)
-- ARGV  1 SADD or SREM  2 + or -  3 number of changes to keep  4 the text to store of added numbers, '' for none
--       then the numbers
-- Returns the number of numbers that changed.
local version = tonumber(redis.call('GET', KEYS[2]) or 0)
local changed = 0
for nth = 5, #ARGV do
  if redis.call(ARGV[1], KEYS[1], ARGV[nth]) == 1 then
    changed = changed + 1
    version = version + 1
    if ARGV[1] == 'SREM' then
      redis.call('HDEL', KEYS[4], ARGV[nth])
    elseif ARGV[4] ~= '' then
      redis.call('HSET', KEYS[4], ARGV[nth], ARGV[4])
    end
    redis.call('ZADD', KEYS[3], version, string.format('%.0f', version) .. ' ' .. ARGV[2] .. ARGV[nth])
  end
end
if changed > 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', version))
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[3]))
end
return changed

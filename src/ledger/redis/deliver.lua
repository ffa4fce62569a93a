-- Writes down what reports say of a batch's messages, if nobody else has done so meanwhile.
-- KEYS  1 campaign  2 the batch's deliveries (bytes)  3 texts  4 responses  5 those of them that others were not told of
-- ARGV  1 the deliveries as they were read ('' for none)  2 as they are now
--       3 how many counters follow, field and by how much of each
--       then how many texts, field and text of each, then the responses, key and JSON of each
-- Returns 0 if they were changed meanwhile, else 1 and for each response whether it is to be told.
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then
  return { 0 }
end
if ARGV[2] ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2])
end
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local texts = tonumber(ARGV[at])
at = at + 1
for _ = 1, texts do
  redis.call('HSETNX', KEYS[3], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local answer = { 1 }
for nth = at, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[4], ARGV[nth], ARGV[nth + 1]) == 1 then
    redis.call('SADD', KEYS[5], ARGV[nth])
  end
  answer[#answer + 1] = redis.call('SISMEMBER', KEYS[5], ARGV[nth])
end
return answer

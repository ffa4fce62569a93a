-- Registers a campaign, unless its id is taken.
-- KEYS  1 campaign  2 job
-- ARGV  1 fingerprint  2 job (JSON)  3 columns (JSON)  4 rehearsal (0 or 1)  then field and value of
--       the campaign's hash, in turns
-- Returns what stands: 'new', 'same', 'other' (its id is another job's), 'rehearsal' (a rehearsal
-- must go first), 'real' (a rehearsal must not take its place).
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'rehearsal')
if known[1] then
  if known[2] == '1' and ARGV[4] == '0' then
    return 'rehearsal'
  elseif known[2] == '0' and ARGV[4] == '1' then
    return 'real'
  end
  return known[1] == ARGV[1] and 'same' or 'other'
end
local fields = {
  'fingerprint', ARGV[1], 'columns', ARGV[3], 'rehearsal', ARGV[4],
  'state', 'scheduled', 'planned', '0', 'batches', '0', 'plan_batches', '0', 'plan_rows', '0', 'plan_digest', '',
  'pending', '0', 'sending', '0', 'accepted', '0', 'rejected', '0', 'in_doubt', '0', 'skipped', '0',
  'submitted_at', string.format('%.0f', math.floor(clock() / 1000)),
}
for index = 5, #ARGV do
  fields[#fields + 1] = ARGV[index]
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[1], unpack(fields))
return 'new'

-- Writes down how far a campaign is planned, with its new batches and skipped rows.
-- KEYS  1 campaign  2 open  3 skipped (list)  then each batch's hash and meta, in turns
-- ARGV  1 the row of the checkpoint before  2 rows  3 batches  4 digest  5 complete (0 or 1)
--       6 how many batches follow, then number and meta of each
--       then how many reasons follow, reason and count of each, then the skipped rows (JSON)
-- Returns 'ok', 'known' (nothing was changed), 'stale' (another planner has gone on), 'unknown'.
local known = redis.call('HGET', KEYS[1], 'plan_rows')
if not known then
  return 'unknown'
end
if known ~= ARGV[1] then
  return tonumber(known) >= tonumber(ARGV[2]) and 'known' or 'stale'
end
local at = 7
for nth = 1, tonumber(ARGV[6]) do
  create(KEYS[1], KEYS[2 + nth * 2], KEYS[3 + nth * 2], KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local reasons = tonumber(ARGV[at])
at = at + 1
for _ = 1, reasons do
  redis.call('HINCRBY', KEYS[1], 'skipped:' .. ARGV[at], ARGV[at + 1])
  redis.call('HINCRBY', KEYS[1], 'skipped', ARGV[at + 1])
  at = at + 2
end
for line = at, #ARGV do
  redis.call('RPUSH', KEYS[3], ARGV[line])
end
redis.call('HSET', KEYS[1], 'plan_rows', ARGV[2], 'plan_batches', ARGV[3], 'plan_digest', ARGV[4],
  'planned', ARGV[5])
return 'ok'

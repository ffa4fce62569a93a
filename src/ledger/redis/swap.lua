-- Checks, and commands that are done if all checks pass: the one way in which the ledger changes what
-- others change too. It knows no state of a message or a campaign; the worker has judged, and names what
-- its judgement was made of.
--
-- ARGV  1 how many checks. A check: 'field' or 'start', the key's place among KEYS, the field's name or
--       the last byte of the start, how many values are allowed, and these; '' is none.
--       Then commands: how many of those behind it are left out if it answers 0, its name, its key's
--       place, how many arguments, and these. Beside Redis' own there are
--         DUE    adds a member to a sorted set at so many microseconds from now
--         STAMP  sets a field to the present moment, in microseconds
--         MAX    sets a field to a number, unless it has a larger one
-- Returns 0 and what each command answered, or which check failed and what it found; the server's clock,
-- in milliseconds, stands between.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at, answers = 2, { 0, math.floor(now / 1000) }
for nth = 1, tonumber(ARGV[1]) do
  local key, what, count = KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], tonumber(ARGV[at + 3])
  local found
  if ARGV[at] == 'field' then
    found = redis.call('HGET', key, what) or ''
  else
    found = redis.call('GETRANGE', key, 0, what)
  end
  local allowed = false
  for value = at + 4, at + 3 + count do
    allowed = allowed or ARGV[value] == found
  end
  if not allowed then
    return { nth, answers[2], found }
  end
  at = at + 4 + count
end
while at <= #ARGV do
  local skip, name, key = tonumber(ARGV[at]), ARGV[at + 1], KEYS[tonumber(ARGV[at + 2])]
  local first = at + 4
  at = first + tonumber(ARGV[at + 3])
  local answer
  if name == 'DUE' then
    answer = redis.call('ZADD', key, string.format('%.0f', now + ARGV[first]), ARGV[first + 1])
  elseif name == 'STAMP' then
    answer = redis.call('HSET', key, ARGV[first], string.format('%.0f', now))
  elseif name == 'MAX' then
    if tonumber(redis.call('HGET', key, ARGV[first]) or 0) < tonumber(ARGV[first + 1]) then
      redis.call('HSET', key, ARGV[first], ARGV[first + 1])
    end
    answer = 1
  else
    answer = redis.call(name, key, unpack(ARGV, first, at - 1))
  end
  answers[#answers + 1] = answer
  if answer == 0 then
    for _ = 1, skip do
      at = at + 4 + tonumber(ARGV[at + 3])
      answers[#answers + 1] = 0
    end
  end
end
return answers

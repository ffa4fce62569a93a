-- Runs commands if all checks pass: the only way to write what several workers write. It knows no state of a message or a
-- campaign: the worker has decided, and names what its decision was based on.
--
-- ARGV  1 the program, then the values that it refers to; `transaction.rs` has the format and an example.
-- `commands` is the list of names that `transaction.rs` puts before this text. Beside Redis' own commands there are
--   DUE      adds a member to a sorted set with the score "now + n microseconds"
--   STAMP    sets a field to the present time, in microseconds
--   MAX      sets a field to a number, unless it has a larger one
--   TICK     adds to a counter that expires n seconds after it began
--   HISTORY  sets a field to the server's replication epoch (`server_history.lua`)
-- Returns 0, the clock, and what each command answered; or the number of the check that failed, the clock, and what the check
-- found. The clock is the server's, in milliseconds.
local call, byte = redis.call, string.byte
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local program, at, arg, answers = ARGV[1], 2, 2, { 0, math.floor(now / 1000) }
for nth = 1, byte(program, 1) do
  local kind, high, low, count = byte(program, at, at + 3)
  local key, what = KEYS[high * 256 + low], ARGV[arg]
  local found
  local allowed = false
  if kind == 1 then
    found = call('HGET', key, what) or ''
  elseif kind == 3 then
    local known = call('HGET', key, 'history')
    found = server_history()
    allowed = not known or known == found
  else
    found = call('GETRANGE', key, 0, what)
  end
  for value = arg + 1, arg + count do
    allowed = allowed or ARGV[value] == found
  end
  if not allowed then
    return { nth, answers[2], found }
  end
  at = at + 4
  arg = arg + 1 + count
end
while at <= #program do
  local place, high, low, skip, many, few = byte(program, at, at + 5)
  local name, key, first = commands[place], KEYS[high * 256 + low], arg
  at = at + 6
  arg = arg + many * 256 + few
  local answer
  if name == 'DUE' then
    answer = call('ZADD', key, string.format('%.0f', now + ARGV[first]), ARGV[first + 1])
  elseif name == 'STAMP' then
    answer = call('HSET', key, ARGV[first], string.format('%.0f', now))
  elseif name == 'MAX' then
    if tonumber(call('HGET', key, ARGV[first]) or 0) < tonumber(ARGV[first + 1]) then
      call('HSET', key, ARGV[first], ARGV[first + 1])
    end
    answer = 1
  elseif name == 'HISTORY' then
    answer = call('HSET', key, ARGV[first], server_history())
  elseif name == 'TICK' then
    answer = call('INCRBY', key, ARGV[first])
    if answer == tonumber(ARGV[first]) then
      call('EXPIRE', key, ARGV[first + 1])
    end
  else
    answer = call(name, key, unpack(ARGV, first, arg - 1))
  end
  answers[#answers + 1] = answer
  if answer == 0 then
    for _ = 1, skip do
      many, few = byte(program, at + 4, at + 5)
      at = at + 6
      arg = arg + many * 256 + few
      answers[#answers + 1] = 0
    end
  end
end
return answers

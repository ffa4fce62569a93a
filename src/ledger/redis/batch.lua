-- What the scripts below share: how a batch is kept. It stands before each of them.
--
-- A batch's `meta` is bytes: a digest of its recipients (8), then 20 for each message, big-endian:
-- the number's digits (7), the row (6), how often it was claimed (1), the last change in
-- milliseconds since 1970 (6). A message's state is the value of its number in the batch's hash.
local HEAD, ENTRY = 8, 20

-- The store's clock, in microseconds since 1970.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- How many messages a batch has.
local function size(meta)
  return (#meta - HEAD) / ENTRY
end

-- The field of a message, by its place from 0.
local function field(meta, index)
  return '+' .. string.format('%.0f', (struct.unpack('>I7', meta, HEAD + index * ENTRY + 1)))
end

-- The meta with some messages' attempts (added to) and times set. `changed`: place -> more attempts.
local function touched(meta, changed, micros)
  local pieces = { string.sub(meta, 1, HEAD) }
  local time = math.floor(micros / 1000)
  for index = 0, size(meta) - 1 do
    local at = HEAD + index * ENTRY + 1
    local more = changed[index]
    if more then
      local attempts = math.min(255, string.byte(meta, at + 13) + more)
      pieces[#pieces + 1] = string.sub(meta, at, at + 12) .. struct.pack('>I1I6', attempts, time)
    else
      pieces[#pieces + 1] = string.sub(meta, at, at + ENTRY - 1)
    end
  end
  return table.concat(pieces)
end

-- Writes a batch down with all messages pending, if it is not yet. Returns how many those are.
local function create(campaign, batch, meta, open, number, bytes)
  if redis.call('EXISTS', meta) == 1 then
    return 0
  end
  local pairs_of = {}
  for index = 0, size(bytes) - 1 do
    pairs_of[#pairs_of + 1] = field(bytes, index)
    pairs_of[#pairs_of + 1] = 'pending'
  end
  redis.call('SET', meta, bytes)
  redis.call('HSET', batch, unpack(pairs_of))
  redis.call('SADD', open, number)
  redis.call('HINCRBY', campaign, 'pending', size(bytes))
  if tonumber(number) >= tonumber(redis.call('HGET', campaign, 'batches')) then
    redis.call('HSET', campaign, 'batches', number + 1)
  end
  return size(bytes)
end

-- The word of a state, and what stands behind it.
local function parted(value)
  local gap = string.find(value, ' ', 1, true)
  if gap then
    return string.sub(value, 1, gap - 1), string.sub(value, gap + 1)
  end
  return value, ''
end

-- Whether a batch has open messages, and whether any is held by a claim.
local function open_in(batch, mine)
  local open, held = false, false
  for _, value in ipairs(redis.call('HVALS', batch)) do
    if value == 'pending' then
      open = true
    elseif string.sub(value, 1, 7) == 'sending' then
      open = true
      held = held or value == mine
    end
  end
  return open, held
end

-- Moves the campaign's counters. `moved`: state -> by how many.
local function count(campaign, moved)
  for state, by in pairs(moved) do
    if by ~= 0 then
      redis.call('HINCRBY', campaign, state, by)
    end
  end
end


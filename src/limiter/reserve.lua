-- Takes the tokens of some requests from all of their buckets, or from none.
--
-- A bucket is the time at which it is full again (a "theoretical arrival time"), in microseconds of the server's clock, with
-- the period and the burst that this time was computed with. A send is due when every bucket has its tokens. If that is
-- soon, the tokens are taken for that time, so that over any period t at most rate * t + burst sends are due. If not, none is
-- taken, and the sender asks again later, as limits may change by then.
--
-- KEYS  1 state of the account (hash)  2 its requests  3 messages of the sender number
--       4 messages of the campaign  5 recipients of the account (sorted by the last message)
--       6 the flow, if it is throttled (hash)
-- ARGV  1 number of messages  2 period of a request (microseconds, 0 means unlimited)  3 burst
--       4 period of a message  5 burst  6 period of a message of the campaign  7 burst
--       8 how early tokens are taken (microseconds)
--       9 interval after which a slowed account gets back a tenth  10 smallest share of its rate
--       11 limit of recipients (0 means unlimited)  12 its period  13 whether there is a flow (0 or 1)
--       14 an hour  15 initial limit of a throttled flow in an hour  16 maximum of doublings
--       17 requests that a worker has in flight  18 number of requests
--       19 retention of a throttled flow (milliseconds)  then the recipients
-- Returns four numbers. The first is the kind of answer:
--   0 wait: the second is for how long, the third for what (0 the campaign, 1 the sender number, 2 the account)
--   1 taken: the second is the time until the send is due, the third whether the requests in flight would fit, too (0 or 1)
--   2 only one message can be asked for
--   3 only some recipients can be asked for: their indexes follow the four numbers
--   4 no recipient can have a message: the second is for how long
-- The fourth is by how much the server's clock went back (microseconds).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local count, requests, soon = tonumber(ARGV[1]), tonumber(ARGV[18]), tonumber(ARGV[8])
local back = 0

local state = redis.call('HMGET', KEYS[1], 'paused_until', 'slowed_at', 'share', 'paused_at')
local paused, slowed_at = tonumber(state[1] or 0), tonumber(state[2] or 0)
if state[4] and now < tonumber(state[4]) then
  -- A pause keeps its length when the clock goes back.
  back = tonumber(state[4]) - now
  paused, slowed_at = paused - back, slowed_at - back
  redis.call('HSET', KEYS[1], 'paused_until', string.format('%.0f', paused),
    'slowed_at', string.format('%.0f', slowed_at), 'paused_at', string.format('%.0f', now))
end
local share = 1
if state[2] then
  local steps = math.floor(math.max(0, now - slowed_at) / tonumber(ARGV[9]))
  share = math.max(tonumber(ARGV[10]), math.min(1, tonumber(state[3]) + steps * 0.1))
end

local buckets, cut = {}, count
-- Returns the time at which a bucket has a number of tokens.
local function bucket(key, tokens, period, burst, slowed)
  period, burst = tonumber(period), tonumber(burst)
  if period == 0 then
    return now
  end
  if slowed then
    period = period / share
  end
  local full = now
  local kept = redis.call('GET', key)
  if kept then
    local at, p, b = string.match(kept, '^(%S+) (%S+) (%S+)$')
    at, p, b = tonumber(at or kept), tonumber(p or period), tonumber(b or burst)
    -- Tokens are never taken for a later time.
    local latest = now + soon + b * p
    if at > latest then
      back = math.max(back, at - latest)
      at = latest
      redis.call('SET', key, string.format('%.17g %.17g %d', at, p, b), 'PX', math.ceil((at - now) / 1000) + 1000)
    end
    full = math.max(now, at)
    if p ~= period or b ~= burst then
      -- It keeps its tokens, as far as they fit the new burst, and gains none.
      full = now + (burst - math.min(burst, b - (full - now) / p)) * period
    end
  end
  buckets[#buckets + 1] = { key = key, cost = tokens * period, full = full, period = period, burst = burst }
  return math.max(now, full + (tokens - burst) * period)
end

local of_account = math.max(now, paused, bucket(KEYS[2], requests, ARGV[2], ARGV[3], true))
local of_sender = bucket(KEYS[3], count, ARGV[4], ARGV[5], true)
local of_campaign = bucket(KEYS[4], count, ARGV[6], ARGV[7], false)

local period = 0
if ARGV[13] == '1' then
  local flow = redis.call('HMGET', KEYS[6], 'since', 'count', 'doublings', 'full')
  local since, doublings = tonumber(flow[1]), tonumber(flow[3] or 0)
  local hourly = tonumber(ARGV[15]) * 2 ^ doublings
  if since and since > now then
    back = math.max(back, since - now)
    since = now
    redis.call('HSET', KEYS[6], 'since', string.format('%.0f', now))
  end
  if since and now - since >= tonumber(ARGV[14]) and tonumber(flow[2] or 0) >= hourly then
    -- An hour's worth has gone out without another report of throttling.
    since, doublings, hourly = now, doublings + 1, hourly * 2
    redis.call('HSET', KEYS[6], 'since', string.format('%.0f', now), 'count', 0, 'doublings', doublings)
  end
  if since and doublings >= tonumber(ARGV[16]) then
    redis.call('DEL', KEYS[6])
  elseif since then
    if count > 1 then
      return { 2, 0, 0, math.ceil(back) }
    end
    period = tonumber(ARGV[14]) / hourly
    of_campaign = math.max(of_campaign, math.min(tonumber(flow[4] or 0), now + period + soon))
  end
end

if requests == 1 then
  for _, limit in ipairs({ { ARGV[4], ARGV[5] }, { ARGV[6], ARGV[7] } }) do
    if tonumber(limit[1]) > 0 then
      cut = math.min(cut, tonumber(limit[2]))
    end
  end
  if cut < count then
    local some = { 3, 0, 0, math.ceil(back) }
    for place = 0, cut - 1 do
      some[#some + 1] = place
    end
    return some
  end
end

local due = math.max(of_account, of_sender, of_campaign)
if due > now + soon then
  local line = 0
  if of_account == due then
    line = 2
  elseif of_sender == due then
    line = 1
  end
  return { 0, math.ceil(due - now), line, math.ceil(back) }
end

local limit, span = tonumber(ARGV[11]), tonumber(ARGV[12])
if limit > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', due - span))
  local known = redis.call('ZCARD', KEYS[5])
  local left, some = math.max(0, limit - known), { 3, 0, 0, math.ceil(back) }
  for nth = 20, #ARGV do
    if redis.call('ZSCORE', KEYS[5], ARGV[nth]) then
      some[#some + 1] = nth - 20
    elseif left > 0 then
      left = left - 1
      some[#some + 1] = nth - 20
    end
  end
  if #some == 4 then
    -- Until there is room for one recipient; after a limit was lowered, several have to expire first.
    local nth = math.max(0, known - limit)
    local leaves = redis.call('ZRANGE', KEYS[5], nth, nth, 'WITHSCORES')
    local room = (tonumber(leaves[2]) or due) + span + 1
    return { 4, math.max(1000000, math.ceil(room - now)), 0, math.ceil(back) }
  end
  if #some - 4 < #ARGV - 19 then
    return some
  end
end

local room = limit == 0 and period == 0
for _, each in ipairs(buckets) do
  local full = math.max(due, each.full) + each.cost
  room = room and full + each.cost / requests * tonumber(ARGV[17]) - each.burst * each.period <= now
  -- Expires when it is full again.
  redis.call('SET', each.key, string.format('%.17g %.17g %d', full, each.period, each.burst),
    'PX', math.ceil((full - now) / 1000) + 1000)
end
if period > 0 then
  redis.call('HSET', KEYS[6], 'full', string.format('%.0f', due + period))
  redis.call('HINCRBY', KEYS[6], 'count', 1)
  redis.call('PEXPIRE', KEYS[6], ARGV[19])
end
if limit > 0 then
  for nth = 20, #ARGV do
    redis.call('ZADD', KEYS[5], string.format('%.0f', due), ARGV[nth])
  end
  redis.call('PEXPIRE', KEYS[5], math.ceil((due - now + span) / 1000) + 1000)
end
return { 1, math.max(0, math.ceil(due - now)), room and 1 or 0, math.ceil(back) }

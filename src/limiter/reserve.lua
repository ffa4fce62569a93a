-- Takes the tokens of some requests from all buckets that they draw from, or from none.
--
-- A bucket is the moment at which it will be full again (a "theoretical arrival time"), in
-- microseconds of the server's clock. A send is due when every bucket has its tokens, and they are
-- taken for that moment, so that in any span t at most rate * t + burst is due.
--
-- KEYS  1 the account's state (hash)  2 its requests  3 the sender number's messages
--       4 the campaign's messages  5 the account's recipients (sorted by the last message)
--       6 the flow, if it is throttled (hash)
-- ARGV  1 how many messages  2 period of a request (microseconds, 0 is no limit)  3 burst
--       4 period of a message  5 burst  6 period of a campaign's message  7 burst
--       8 how much longer the campaign's wait may be than the account's  9 the longest wait
--       10 after how long a slowed account gets a tenth back  11 the least share of its rate
--       12 how many recipients (0 is no limit)  13 in which span  14 whether there is a flow (0 or 1)
--       15 an hour  16 how many messages of a throttled flow in it at first  17 how often that may double
--       18 how many sends a worker has under way  19 how many requests
--       20 how long a throttled flow is remembered (milliseconds)  then the recipients
-- Returns 1, how long until they are due, and whether so many more like it could go out at once (0 or
-- 1); 0 and after how long to ask again; or 2 when only one message can be asked for.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local count, requests = tonumber(ARGV[1]), tonumber(ARGV[19])

local state = redis.call('HMGET', KEYS[1], 'paused_until', 'slowed_at', 'share')
local start = math.max(now, tonumber(state[1] or 0))
local share = 1
if state[2] then
  local steps = math.floor(math.max(0, now - tonumber(state[2])) / tonumber(ARGV[10]))
  share = math.max(tonumber(ARGV[11]), math.min(1, tonumber(state[3]) + steps * 0.1))
end

local buckets = {}
local function bucket(key, tokens, period, burst, slowed)
  period, burst = tonumber(period), tonumber(burst)
  if period > 0 then
    if slowed then
      period = period / share
    end
    local full = math.max(now, tonumber(redis.call('GET', key) or 0))
    buckets[#buckets + 1] = { key = key, cost = tokens * period, full = full, holds = burst * period }
    return full + (tokens - burst) * period
  end
  return now
end

local due = math.max(
  start,
  bucket(KEYS[2], requests, ARGV[2], ARGV[3], true),
  bucket(KEYS[3], count, ARGV[4], ARGV[5], true)
)
local campaign = bucket(KEYS[4], count, ARGV[6], ARGV[7], false)

local period = 0
if ARGV[14] == '1' then
  local flow = redis.call('HMGET', KEYS[6], 'since', 'count', 'doublings', 'full')
  local since, doublings = tonumber(flow[1]), tonumber(flow[3] or 0)
  local hourly = tonumber(ARGV[16]) * 2 ^ doublings
  if since and now - since >= tonumber(ARGV[15]) and tonumber(flow[2] or 0) >= hourly then
    -- An hour's worth has gone out, and nothing has said again that it is throttled.
    since, doublings, hourly = now, doublings + 1, hourly * 2
    redis.call('HSET', KEYS[6], 'since', string.format('%.0f', now), 'count', 0, 'doublings', doublings)
  end
  if since and doublings >= tonumber(ARGV[17]) then
    redis.call('DEL', KEYS[6])
  elseif since then
    if count > 1 then
      return { 2, 0, 0 }
    end
    period = tonumber(ARGV[15]) / hourly
    campaign = math.max(campaign, tonumber(flow[4] or 0))
  end
end
if campaign > due + tonumber(ARGV[8]) then
  return { 0, math.ceil(campaign - now), 0 }
end
due = math.max(due, campaign)

local limit, span = tonumber(ARGV[12]), tonumber(ARGV[13])
if limit > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', due - span))
  local new = 0
  for nth = 21, #ARGV do
    if not redis.call('ZSCORE', KEYS[5], ARGV[nth]) then
      new = new + 1
    end
  end
  local over = redis.call('ZCARD', KEYS[5]) + new - limit
  if over > 0 then
    local oldest = redis.call('ZRANGE', KEYS[5], over - 1, over - 1, 'WITHSCORES')
    due = math.max(due, oldest[2] and tonumber(oldest[2]) + span + 1 or now)
  end
end

if due - now > tonumber(ARGV[9]) then
  return { 0, math.ceil(due - now), 0 }
end
local room = limit == 0 and period == 0
for _, each in ipairs(buckets) do
  local full = math.max(due, each.full) + each.cost
  room = room and full + each.cost / requests * tonumber(ARGV[18]) - each.holds <= now
  -- Gone by itself when it is full again.
  redis.call('SET', each.key, string.format('%.17g', full), 'PX', math.ceil((full - now) / 1000) + 1000)
end
if period > 0 then
  redis.call('HSET', KEYS[6], 'full', string.format('%.0f', due + period))
  redis.call('HINCRBY', KEYS[6], 'count', 1)
  redis.call('PEXPIRE', KEYS[6], ARGV[20])
end
if limit > 0 then
  for nth = 21, #ARGV do
    redis.call('ZADD', KEYS[5], string.format('%.0f', due), ARGV[nth])
  end
  redis.call('PEXPIRE', KEYS[5], math.ceil((due - now + span) / 1000) + 1000)
end
return { 1, math.max(0, math.ceil(due - now)), room and 1 or 0 }

-- Put before scripts that use it: returns the server's replication epoch (its replication id). It changes with each start
-- of a master and each failover; '' if the server does not report it.
local function server_history()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

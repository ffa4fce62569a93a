-- Stands before scripts that ask for it: the id of the history of the server's data. It is another one after
-- each start of a master, and after each time that a replica has taken over; '' where a server does not tell it.
local function server_history()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

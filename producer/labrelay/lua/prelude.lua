-- Shared by every ledger script. ARGV[1] is always the key prefix; times are milliseconds of the Redis server,
-- because workers' clocks differ.
local prefix = ARGV[1]

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function row_key(id) return prefix .. 'export:' .. id end

-- "%.0f": Lua would print large numbers in scientific notation.
local function text(number) return string.format('%.0f', number) end

local function move_state(id, from, to, now)
  if from and from ~= to then redis.call('ZREM', prefix .. 'state:' .. from, id) end
  redis.call('ZADD', prefix .. 'state:' .. to, text(now), id)
  redis.call('HSET', row_key(id), 'state', to, 'updated', text(now))
end

local function set_due(id, at) redis.call('ZADD', prefix .. 'due', text(at), id) end

local function unset_due(id) redis.call('ZREM', prefix .. 'due', id) end

-- A trail entry is "<ms> <json>"; the oldest give way, so that one export cannot fill the server.
local function note(id, now, entry)
  local key = prefix .. 'trail:' .. id
  redis.call('RPUSH', key, text(now) .. ' ' .. entry)
  redis.call('LTRIM', key, -500, -1)
end

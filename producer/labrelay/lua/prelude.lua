-- Shared by every ledger script. ARGV[1] is always the key prefix; times are milliseconds of the Redis server,
-- because workers' clocks differ.
local prefix = ARGV[1]

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function row_key(id) return prefix .. 'export:' .. id end

-- What a delivered export keeps compressed (packed.py).
local function packed_key(id) return prefix .. 'packed:' .. id end

-- "%.0f": Lua would print large numbers in scientific notation.
local function text(number) return string.format('%.0f', number) end

-- The index alone; the caller writes the row.
local function move_index(id, from, to, now)
  if from and from ~= to then redis.call('ZREM', prefix .. 'state:' .. from, id) end
  redis.call('ZADD', prefix .. 'state:' .. to, text(now), id)
end

local function move_state(id, from, to, now)
  move_index(id, from, to, now)
  redis.call('HSET', row_key(id), 'state', to, 'updated', text(now))
end

local function set_due(id, at) redis.call('ZADD', prefix .. 'due', text(at), id) end

local function unset_due(id) redis.call('ZREM', prefix .. 'due', id) end

-- A trail entry is "<ms> <json>"; the oldest give way, so that one export cannot fill the server.
local function note_all(id, now, entries)
  local key, lines = prefix .. 'trail:' .. id, {}
  for i, entry in ipairs(entries) do lines[i] = text(now) .. ' ' .. entry end
  if redis.call('RPUSH', key, unpack(lines)) > 500 then redis.call('LTRIM', key, -500, -1) end
end

local function note(id, now, entry) note_all(id, now, {entry}) end

local function ready_key(priority) return prefix .. 'ready:' .. priority end

-- Rows of an older release have no priority.
local function priority_of(id) return redis.call('HGET', row_key(id), 'priority') or 'normal' end

-- NX: who waits already keeps its place.
local function make_ready(id, priority, now) redis.call('ZADD', ready_key(priority), 'NX', text(now), id) end

local function unmake_ready(id, priority) redis.call('ZREM', ready_key(priority), id) end

-- How many wake-ups must be published so that all who are ready are taken; they count as rung from now on.
local function to_ring()
  local ready = 0
  for _, priority in ipairs(priorities) do ready = ready + redis.call('ZCARD', ready_key(priority)) end
  local missing = math.ceil(ready / exports_per_wake_up) - tonumber(redis.call('GET', prefix .. 'rung') or '0')
  if missing <= 0 then return 0 end
  redis.call('INCRBY', prefix .. 'rung', missing)
  return missing
end

-- Copy one export many times. ARGV: prefix number state due_ms fields trail held (id number packed)*
-- `fields`, `trail`: JSON lists of the export with this `number`, which every copy has replaced by its own. `due_ms`: 0
-- for none. `held`: the destination it waits for. `packed`: its bulk.
local prefix, number, state, due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local fields, trail, held = cjson.decode(ARGV[5]), cjson.decode(ARGV[6]), ARGV[7]
local session
for i = 1, #fields, 2 do if fields[i] == 'session' then session = fields[i + 1] end end
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
for i = 8, #ARGV, 3 do
  local id, own, packed = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local function copy(list)
    local copied = {}
    for n, value in ipairs(list) do copied[n] = string.gsub(value, number, own) end
    return copied
  end
  redis.call('HSET', prefix .. 'export:' .. id, unpack(copy(fields)))
  if #trail > 0 then redis.call('RPUSH', prefix .. 'trail:' .. id, unpack(copy(trail))) end
  if packed ~= '' then redis.call('SET', prefix .. 'packed:' .. id, packed) end
  redis.call('ZADD', prefix .. 'state:' .. state, now, id)
  if due ~= '0' then redis.call('ZADD', prefix .. 'due', due, id) end
  if held ~= '' then redis.call('ZADD', prefix .. 'held:' .. held, now, id) end
  redis.call('HSET', prefix .. 'sessions', string.gsub(session, number, own), id)
end
return 'OK'

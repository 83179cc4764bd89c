-- Keep the bulk of delivered exports as one compressed text. ARGV: prefix (id updated packed)*
-- Answers for each 'packed', or 'changed' (it is not any more what was packed: nothing done).
-- The row is built anew: Redis keeps a small new hash as one block, and never turns a large one back into that.
local function pack(id, updated, packed)
  local key = row_key(id)
  local row = redis.call('HMGET', key, 'state', 'updated', 'context')
  if row[1] ~= 'delivered' or row[2] ~= updated or not row[3] then return 'changed' end
  local bulk = {context = true, earlier = true, not_before = true, ['d:'] = true, ['r:'] = true, ['p:'] = true}
  local all, kept = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    if not bulk[all[i]] and not bulk[string.sub(all[i], 1, 2)] then
      kept[#kept + 1], kept[#kept + 2] = all[i], all[i + 1]
    end
  end
  redis.call('DEL', key, prefix .. 'trail:' .. id)
  redis.call('HSET', key, unpack(kept))
  redis.call('SET', packed_key(id), packed)
  return 'packed'
end

local answers = {}
for i = 2, #ARGV, 3 do answers[#answers + 1] = pack(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return answers

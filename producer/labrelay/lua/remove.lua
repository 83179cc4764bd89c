-- Remove one ended export whose archive line is on disk; a tombstone stays. ARGV: prefix id state updated file host why receipts
-- `receipts`: what packed.py keeps of them for the tombstone, empty for none.
-- Answers 'removed', 'changed' (it is not any more what was archived: nothing done) or 'missing'.
local id, state, updated = ARGV[2], ARGV[3], ARGV[4]
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'updated')
if not row[1] then
  redis.call('ZREM', prefix .. 'state:' .. state, id)
  return 'missing'
end
if row[1] ~= state or row[2] ~= updated then return 'changed' end
if state == 'queued' or state == 'running' or state == 'waiting' then return 'changed' end
-- The tombstone is the row without its bulk: enough to tell duplicates, to say where it went, and to make a next
-- revision that knows receipts, doubts and token.
local tombstone = {archive_file = ARGV[5], archive_host = ARGV[6], archive_why = ARGV[7], archive_at = text(now)}
if ARGV[8] ~= '' then tombstone.packed = ARGV[8] end
local bulk = {context = true, earlier = true, ['d:'] = true, ['r:'] = true, ['p:'] = true}
for _, field in ipairs(redis.call('HKEYS', key)) do
  if not bulk[field] and not bulk[string.sub(field, 1, 2)] then tombstone[field] = redis.call('HGET', key, field) end
end
redis.call('HSET', prefix .. 'archived', id, cjson.encode(tombstone))
redis.call('DEL', key, prefix .. 'trail:' .. id, packed_key(id))
redis.call('ZREM', prefix .. 'state:' .. state, id)
unset_due(id)
return 'removed'

-- Give an export that ended without delivery back to the workers, with a fresh attempt budget.
-- ARGV: prefix id updated by grace_ms (destination receipt)*
-- `updated`: what the person saw, empty for any. A pair settles an open intent: with a receipt it arrived, with an
-- empty one it did not. Answers {'replayed', wake-ups to publish, session, instrument, strategy} or {why not}: 'missing', 'changed',
-- 'settled' (there is no such doubt), or the state that cannot be replayed.
local id, updated, by, grace = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'updated', 'revision', 'session', 'instrument', 'strategy',
  'not_before')
local state = row[1]
if not state then return {'missing'} end
if state ~= 'dead' and state ~= 'unknown' and state ~= 'cancelled' then return {state} end
if updated ~= '' and updated ~= row[2] then return {'changed'} end
for i = 6, #ARGV, 2 do
  if redis.call('HEXISTS', key, 'i:' .. ARGV[i]) == 0 then return {'settled'} end
end

for _, field in ipairs(redis.call('HKEYS', key)) do
  if string.sub(field, 1, 2) == 'd:' and redis.call('HEXISTS', key, 'r:' .. string.sub(field, 3)) == 0 then
    redis.call('HDEL', key, field)
  end
end
redis.call('HINCRBY', key, 'token', 1)
redis.call('HDEL', key, 'lease_owner', 'lease_until', 'cancel', 'summary', 'crashes', 'cause')
-- Cancelled while a worker was still sending the revision before: it starts when that one's lease would have ended.
local not_before = state == 'cancelled' and tonumber(row[7] or '0') or 0
redis.call('HSET', key, 'not_before', text(not_before))
move_state(id, state, 'queued', now)
set_due(id, math.max(now + grace, not_before))
if not_before <= now then make_ready(id, priority_of(id), now) end
note(id, now, cjson.encode({event = 'replayed', worker = by, detail = 'it was ' .. state}))
for i = 6, #ARGV, 2 do
  local name, receipt = ARGV[i], ARGV[i + 1]
  local intent = cjson.decode(redis.call('HGET', key, 'i:' .. name))
  local revision = tostring(intent.revision or row[3])
  redis.call('HDEL', key, 'i:' .. name)
  if receipt ~= '' then
    -- An earlier revision that arrived is what the present one updates; it does not deliver the present one.
    redis.call('HSET', key, (revision == row[3] and 'r:' or 'p:') .. name, receipt)
  end
  note(id, now, cjson.encode({event = receipt ~= '' and 'assumed delivered' or 'assumed missing', worker = by,
    destination = name, detail = 'revision ' .. revision .. ', assumed by a person'}))
end
return {'replayed', tostring(to_ring()), row[4], row[5], row[6]}

-- Claim one export. ARGV: prefix id owner lease_ms
-- Answers {'claimed', now, row as a flat list}, or {why not}: 'missing', 'finished', 'leased', 'later'.
local id, owner, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local now, key = now_ms(), row_key(id)
local row = redis.call('HMGET', key, 'state', 'lease_until', 'not_before', 'cancel')
local state = row[1]
if not state then
  unset_due(id)
  return {'missing'}
end
if state ~= 'queued' and state ~= 'waiting' and state ~= 'running' then
  unset_due(id)
  return {'finished'}
end
if state == 'running' and tonumber(row[2] or '0') > now then return {'leased'} end
if tonumber(row[3] or '0') > now then return {'later'} end
if row[4] == '1' then
  redis.call('HDEL', key, 'cancel', 'lease_owner', 'lease_until')
  move_state(id, state, 'cancelled', now)
  unset_due(id)
  note(id, now, cjson.encode({event = 'cancelled'}))
  return {'finished'}
end
local detail = state == 'running' and 'after the lease of another worker ended' or ''
redis.call('HINCRBY', key, 'token', 1)
redis.call('HINCRBY', key, 'runs', 1)
redis.call('HSET', key, 'lease_owner', owner, 'lease_until', text(now + lease))
move_state(id, state, 'running', now)
set_due(id, now + lease)
note(id, now, cjson.encode({event = 'claimed', worker = owner, detail = detail}))
return {'claimed', text(now), redis.call('HGETALL', key)}
